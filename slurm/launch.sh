#!/usr/bin/env bash
# Runs a command of the suite on every task of a Slurm job: what the templates in this folder share.
#
#   launch.sh MODULE [DEFAULT_ARGUMENT...] -- [ARGUMENT...]
#
# The defaults, a configuration, count unless the arguments name another one, or a folder to resume.
#
# SWIN_ENV   the environment, in one place: a virtual environment's folder, or a file to source (environment.sh), with
#            `module load` lines and whatever else is needed. Default: the clone's .venv if there is one, else the
#            python that was active when the job was submitted.
# SWIN_CODE  the clone; default: the folder in which sbatch was called.
#
# A training that was interrupted after saving (exit code 75), or killed by a signal, is requeued and goes on in its
# folder, unless Slurm says that the job was cancelled; see requeue.sh. The first start makes a snapshot of the code,
# which all later ones run; of the clone they only read this folder, to find it.
set -euo pipefail

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

[[ -n ${SLURM_JOB_ID:-} ]] || fail "no Slurm job: submit this with sbatch, such as: sbatch slurm/train_clf_ddp.sbatch"
[[ -n ${SLURM_SUBMIT_DIR:-} ]] ||
    fail "SLURM_SUBMIT_DIR is not set, which sbatch does: submit this, such as: sbatch slurm/train_clf_ddp.sbatch"
[[ $# -gt 0 ]] || fail "launch.sh MODULE [DEFAULT_ARGUMENT...] -- [ARGUMENT...]: MODULE is missing"

# -- arguments ---------------------------------------------------------------------------------------------------------
original=("$@")
module="$1"
shift
arguments=()
while [[ $# -gt 0 && $1 != -- ]]; do
    arguments+=("$1")
    shift
done
[[ $# -eq 0 ]] || shift
says_what=no
for ((i = 1; i <= $#; i++)); do
    following=$((i + 1))
    case "${!i}" in
        --resume=auto) ;;
        --config | --config=* | --resume=*) says_what=yes ;;
        --resume) [[ ${!following:-} == auto ]] || says_what=yes ;;
    esac
done
if [[ $says_what == yes ]]; then
    arguments=("$@")
else
    arguments+=("$@")
fi

# -- places ------------------------------------------------------------------------------------------------------------
clone="${SWIN_CODE:-$SLURM_SUBMIT_DIR}"
[[ -d $clone/engine ]] || fail "$clone is no clone of this suite: call sbatch there, or set SWIN_CODE to its folder"
run_python() { python "$@"; }
# shellcheck source=slurm/requeue.sh
source "$clone/slurm/requeue.sh" # which names the job
restarts="${SLURM_RESTART_COUNT:-0}"

# -- environment -------------------------------------------------------------------------------------------------------
# SWIN_FROZEN is set once the code is frozen, below: this then runs from a snapshot of that clone, and all is set up.
if [[ ${SWIN_FROZEN_FOR:-} != "$job" ]]; then
    unset SWIN_FROZEN
    environment="${SWIN_ENV:-}"
    if [[ -z $environment && -d $clone/.venv ]]; then
        environment="$clone/.venv"
    fi
    # shellcheck source=slurm/environment.sh
    source "$clone/slurm/environment.sh" "$environment" python
    set -eu
fi
export PYTHONUNBUFFERED=1
export PYTHONPATH="$clone${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1                               # or the current folder would come before it
export SLURM_EXPORT_ENV=ALL                           # whatever sbatch --export said: the tasks need this environment
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # Slurm 22.05 and later do not pass --cpus-per-task on to srun

# -- rank layout -------------------------------------------------------------------------------------------------------
# Every GPU takes one task, and every node as many as any other; engine/distributed/gpus.py names the line to change where not.
if [[ -z ${SWIN_FROZEN:-} ]]; then
    hidden="$(run_python -m engine.distributed.gpus)" || exit 2
    [[ -z $hidden ]] || unset "$hidden" # srun would take it for its own option
fi

# -- code --------------------------------------------------------------------------------------------------------------
# The first start freezes the code beside the experiments; a link named after the job leads every later start to it.
snapshots="$SLURM_SUBMIT_DIR/experiments/.snapshots"
frozen="$snapshots/job_${SLURM_CLUSTER_NAME:-cluster}_$job"
if [[ -z ${SWIN_FROZEN:-} ]] && ! python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "the code is not frozen, which takes Python 3.11: do not edit it while this job waits or runs"
elif [[ -z ${SWIN_FROZEN:-} ]]; then
    if [[ $restarts -eq 0 || ! -d $frozen ]]; then
        taken="$(python -m tools.snapshot --root "$clone" --output "$snapshots")"
        ln -sfn "$(python -c 'import json, sys; print(json.loads(sys.argv[1])["path"])' "$taken")" "$frozen"
    fi
    export SWIN_FROZEN="$clone" SWIN_FROZEN_FOR="$job"
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
SWIN_FOLDER_NOTE="$(mktemp || mktemp -p /tmp)" # rank 0, on this node, writes the experiment's folder there
export SWIN_FOLDER_NOTE
trap 'rm -f "$SWIN_FOLDER_NOTE"' EXIT
started="$(date +%s)"
say "start $((restarts + 1)): python -m $module ${arguments[*]@Q}"
# A rank that fails ends all. One that is lost with its node is waited for in vain, but no longer than that.
srun --kill-on-bad-exit=1 --wait="${SLURM_WAIT:-60}" python -m "$module" "${arguments[@]}" &
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
folder="$(<"$SWIN_FOLDER_NOTE")" # empty if this start ended before the ranks had met and opened it
if [[ $module == *.train ]]; then
    end_training "$status" "$folder" "$started" "$frozen.idle" "$frozen"
else
    end_job "$status" "$frozen"
fi
