#!/usr/bin/env bash
# Runs a command of the suite on every task of a Slurm job: what the templates in this folder share.
#
#   launch.sh MODULE DEFAULT_ARGUMENT... -- ARGUMENT...       in a batch job; the defaults stand in for no argument
#
# SWIN_ENV   the environment, in one place: a virtual environment's folder, or a file to source, with `module load` lines
#            and whatever else a login shell would need. Default: the clone's .venv if there is one, else the python
#            that was active when the job was submitted.
# SWIN_CODE  the clone; default: the folder in which sbatch was called.
#
# A training that was interrupted after saving (exit code 75), or killed by a signal, is requeued and goes on in its
# folder, unless Slurm says that the job was cancelled. The first start makes a snapshot of the code, which all later
# ones run.
set -euo pipefail

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

say() { printf '%s slurm/launch.sh: %s\n' "$(date +%T)" "$*" >&2; }

[[ -n ${SLURM_JOB_ID:-} ]] || fail "no Slurm job: submit this with sbatch, such as: sbatch slurm/train_clf_ddp.sbatch"

# -- arguments ---------------------------------------------------------------------------------------------------------
original=("$@")
module="$1"
shift
arguments=()
while [[ $# -gt 0 && $1 != -- ]]; do
    arguments+=("$1")
    shift
done
[[ $# -gt 0 ]] && shift
[[ $# -gt 0 ]] && arguments=("$@")

# -- places ------------------------------------------------------------------------------------------------------------
job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
job="${job:-$SLURM_JOB_ID}"
clone="${SWIN_CODE:-$SLURM_SUBMIT_DIR}"
[[ -d $clone/engine ]] || fail "$clone is no clone of this suite: call sbatch there, or set SWIN_CODE to its folder"
restarts="${SLURM_RESTART_COUNT:-0}"

# -- rank layout -------------------------------------------------------------------------------------------------------
# One number a node, as it was asked for: `4`, `a100:4` or `gpu:a100:4`.
gpus="${SLURM_GPUS_PER_NODE:-0}"
gpus="${gpus##*:}"
tasks="${SLURM_TASKS_PER_NODE:-1}" # such as 4(x2), or 2,1 on uneven nodes
nodes="${SLURM_JOB_NUM_NODES:-1}"
if [[ -n ${SLURM_GPUS:-}${SLURM_GPUS_PER_TASK:-} ]]; then
    fail "GPUs are asked for by --gpus or --gpus-per-task; remove that and set \"#SBATCH --gpus-per-node=N\""
fi
if [[ $gpus -gt 0 ]]; then
    each="$gpus"
    [[ $nodes -gt 1 ]] && each="$gpus(x$nodes)"
    if [[ $tasks != "$each" ]]; then
        fail "tasks on the nodes: $tasks, but GPUs on each: $gpus; every GPU takes one task:" \
            "change the line \"#SBATCH --ntasks-per-node=${SLURM_NTASKS_PER_NODE:-...}\" to --ntasks-per-node=$gpus" \
            "(and set no --ntasks), or \"#SBATCH --gpus-per-node=$gpus\" to the number of tasks"
    fi
elif [[ $tasks == *,* ]]; then
    fail "tasks on the nodes: $tasks; every node takes as many: remove --ntasks and set \"#SBATCH --ntasks-per-node=N\""
fi

# -- environment -------------------------------------------------------------------------------------------------------
set_up_environment() {
    local environment="${SWIN_ENV:-}"
    if [[ -z $environment && -d $clone/.venv ]]; then
        environment="$clone/.venv"
    fi
    set +u # module systems and activate scripts read variables that are not set
    if [[ -f $environment/bin/activate ]]; then
        # shellcheck disable=SC1091
        source "$environment/bin/activate"
    elif [[ -f $environment ]]; then
        # shellcheck disable=SC1090
        source "$environment"
    elif [[ -n $environment ]]; then
        fail "SWIN_ENV: $environment is neither a virtual environment nor a file to source"
    fi
    set -u
    command -v python >/dev/null || fail "no python found; set SWIN_ENV to a virtual environment or a file to source"
}

# Set once the code is frozen, below: what this runs from is then a snapshot of that clone, and all is set up.
[[ -n ${SWIN_FROZEN:-} ]] || set_up_environment
export PYTHONUNBUFFERED=1
export PYTHONPATH="$clone${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1                               # or the current folder would come before it
export SLURM_EXPORT_ENV=ALL                           # whatever sbatch --export said: the tasks need this environment
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # Slurm 22.05 and later do not pass --cpus-per-task on to srun

# -- code --------------------------------------------------------------------------------------------------------------
# The first start freezes the code beside the experiments; a link named after the job leads every later start to it.
snapshots="$SLURM_SUBMIT_DIR/experiments/.snapshots"
frozen="$snapshots/job_${SLURM_CLUSTER_NAME:-cluster}_$job"
if [[ -z ${SWIN_FROZEN:-} && -f $clone/tools/snapshot.py ]]; then
    if [[ $restarts -eq 0 || ! -d $frozen ]]; then
        taken="$(python -m tools.snapshot --root "$clone" --output "$snapshots")"
        read -r made hash <<<"$taken"
        [[ -d $made ]] || fail "tools.snapshot made no folder, but said: $taken"
        printf '%s\n' "$hash" >"$frozen.hash"
        ln -sfn "$made" "$frozen"
    fi
    export SWIN_FROZEN="$clone" SWIN_SNAPSHOT_HASH
    SWIN_SNAPSHOT_HASH="$(<"$frozen.hash")"
    PYTHONPATH="${PYTHONPATH#"$clone"}"
    PYTHONPATH="${PYTHONPATH#:}"
    SWIN_CODE="$(readlink -f "$frozen")" exec bash "$frozen/slurm/launch.sh" "${original[@]}"
fi

# A configuration that lies in the clone is frozen with it. The templates' own are named from there.
frozen_config() {
    local file="$1" absolute
    absolute="$(realpath --canonicalize-missing --no-symlinks -- "$file")"
    if [[ -n ${SWIN_FROZEN:-} && $absolute == "$SWIN_FROZEN"/* && -f $clone/${absolute#"$SWIN_FROZEN"/} ]]; then
        file="$clone/${absolute#"$SWIN_FROZEN"/}"
    elif [[ $file != /* && ! -e $file && -f $clone/$file ]]; then
        file="$clone/$file"
    fi
    printf '%s' "$file"
}
for ((i = 0; i < ${#arguments[@]}; i++)); do
    if [[ ${arguments[i]} == --config=* ]]; then
        arguments[i]="--config=$(frozen_config "${arguments[i]#--config=}")"
    elif [[ ${arguments[i]} == --config && -n ${arguments[i + 1]:-} ]]; then
        arguments[i + 1]="$(frozen_config "${arguments[i + 1]}")"
    fi
done

# -- run ---------------------------------------------------------------------------------------------------------------
SWIN_FOLDER_NOTE="$(mktemp)" # rank 0, on this node, writes the experiment's folder there
export SWIN_FOLDER_NOTE
trap 'rm -f "$SWIN_FOLDER_NOTE"' EXIT
started="$(date +%s)"
say "job $job, start $((restarts + 1)): python -m $module ${arguments[*]@Q}"
srun --kill-on-bad-exit=1 --unbuffered python -m "$module" "${arguments[@]}" &
step=$!
# srun itself would kill the tasks on SIGTERM; this asks them to save and end.
trap 'kill -USR1 "$step" 2>/dev/null || true' TERM USR1 USR2
status=0
while :; do
    status=0
    wait "$step" || status=$?
    kill -0 "$step" 2>/dev/null || break # else a signal has ended the wait, not srun
done

# -- end ---------------------------------------------------------------------------------------------------------------
if [[ $status -gt 128 ]]; then
    python -m engine.slurm "$(<"$SWIN_FOLDER_NOTE")" "$status" "$started" || true
fi
if [[ $module != *.train || ($status -ne 75 && $status -le 128) ]]; then
    exit "$status"
fi
state="$(scontrol show job --oneliner "$job" | grep -o 'JobState=[A-Z_]*' || true)"
case "$state" in
    JobState=CANCELLED) say "the job was cancelled: not requeued" ;;
    JobState=PENDING | JobState=REQUEUED) say "ended with $status: Slurm has requeued the job" ;;
    *)
        say "ended with $status: requeueing job $job"
        scontrol requeue "$job" || say "that failed: go on with sbatch --dependency=afterany:$job ... --resume auto"
        ;;
esac
exit "$status"
