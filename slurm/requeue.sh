# How a job's script ends, so that launch.sh and the jobs that tools.submit queues decide alike; sourced by both. They
# define `run_python`, which runs Python with the job's code.

job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
job="${job:-$SLURM_JOB_ID}"

say() { printf '%s job %s: %s\n' "$(date +%T)" "$job" "$*" >&2; }

# end_job STATUS COUNT [LEFTOVER...]: exits with STATUS, and removes COUNT and the leftovers if the job is over: nobody
# has cancelled it and Slurm does not start it again.
end_job() {
    local status="$1"
    shift
    [[ " $(slurm_says) " != *" JobState=RUNNING "* ]] || rm -f "$@"
    exit "$status"
}

# end_training STATUS FOLDER STARTED COUNT [LEFTOVER...]: the same, but requeues the job if its training is to go on:
# it was interrupted after saving, or killed. One that never begins is given up.
#
# With SWIN_EXCLUDE_FAILED=1 the next start does not use the node whose rank failed, if enough others are left.
#
# STATUS   what srun ended with.
# FOLDER   the experiment's; empty if this start ended before the ranks had met and opened it.
# STARTED  when srun began, in seconds since 1970.
# COUNT    a file that counts the starts in a row that ended before training began.
end_training() {
    local status="$1" folder="$2" started="$3" count="$4" idle=0 details reason="" node="" excluded=""
    details="$(slurm_says)"
    goes_on || end_job "$status" "${@:4}"
    # A run that gets nowhere stops by itself, but for one that never begins.
    [[ -n $folder ]] || idle=$(($(cat "$count" 2>/dev/null || echo 0) + 1))
    if [[ $idle -ge 3 ]]; then
        say "$idle starts in a row ended before training began: not requeued; the messages above say why"
        end_job 1 "${@:4}"
    fi
    case " $details " in
        *" JobState=PENDING "* | *" JobState=REQUEUED "*) say "ended with $status: Slurm has requeued the job" ;;
        # A job that is cancelled is COMPLETING while this script ends, as is one whose time is up.
        *" JobState=COMPLETING Reason=TimeLimit "* | *" JobState=RUNNING "*)
            say "ended with $status: requeueing, to go on where it was saved last${reason:+; $reason}"
            mkdir -p "$(dirname "$count")"
            echo "$idle" >"$count"
            trap - TERM USR1 USR2
            if [[ ${SWIN_EXCLUDE_FAILED:-0} == 1 && -n $node ]]; then
                excluded="$(run_python -m engine.requeue.exclusion "$node" "$job")" || true
            elif [[ ${SWIN_EXCLUDE_FAILED:-0} == 1 && -n $reason ]]; then
                say "no node is excluded: it is not known whose fault it was"
            fi
            [[ -z $excluded ]] || trap '' TERM # Slurm sends it with the requeue, and changes nodes of a job only after it
            if scontrol requeue "$job"; then
                if [[ -n $excluded ]]; then
                    say "node $node is excluded from the job's next starts (ExcNodeList=$excluded)"
                    scontrol update "JobId=$job" "ExcNodeList=$excluded" || say "that failed: the node stays in use"
                fi
                trap - TERM
                # Slurm now ends this script; one that left by itself meanwhile could pass for the end of the job.
                sleep 60 &
                wait $!
            else
                say "that failed; go on in a new job${folder:+, or with: python -m tools.submit --retry ${folder@Q}}"
            fi
            ;;
        *" JobState="*) say "ended with $status: the job was cancelled" ;;
        *) say "ended with $status; not requeued, as Slurm does not say whether it was cancelled" ;;
    esac
    exit "$status"
}

slurm_says() { scontrol show job --oneliner "$job" || true; }

# Part of end_training, whose variables it reads.
goes_on() {
    local end="" answer=()
    if [[ -n $folder && ($status -eq 1 || $status -gt 128) ]]; then
        end="$(run_python -m engine.requeue.decision "$folder" "$status" "$started")" ||
            say "FAILED.json could not be told how srun ended"
        mapfile -t answer <<<"$end"
        case "${answer[0]:-}" in
            retry) node="${answer[1]:-}" reason="${answer[2]:-}" ;;
            end) status="${answer[1]:-$status}" ;; # srun's may be that of a rank which it has killed for being slow to end
        esac
    fi
    [[ $status -eq 75 || ${answer[0]:-} == retry ]] && return 0
    # Before the folder is open, SIGTERM is srun's own, sent after another task's error; or a preemption's.
    [[ $status -gt 128 && -z $folder && ($status -ne 143 || $details != *" PreemptTime=None "*) ]]
}
