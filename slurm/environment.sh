# Sets up what SWIN_ENV names; sourced by launch.sh and by the jobs that tools.submit queues:
#
#   source environment.sh PLACE PYTHON
#
# PLACE   a virtual environment's folder, a file, or nothing. A file is sourced as a login shell would do it: a command
#         in it that fails ends nothing, and a variable that is not set is empty. -e and -u are off afterwards.
# PYTHON  the command that has to have torch then; if it has not, the job ends with exit code 2.
set +eu
swin_place="$1" swin_python="$2"
if [[ -n $swin_place ]]; then
    swin_file="$swin_place"
    [[ ! -f $swin_place/bin/activate ]] || swin_file="$swin_place/bin/activate"
    if [[ ! -f $swin_file ]]; then
        printf 'error: SWIN_ENV: %s is neither a virtual environment nor a file to source\n' "$swin_place" >&2
        exit 2
    fi
    trap 'printf "error: SWIN_ENV: %s ends the shell that sources it\n" "$swin_file" >&2; exit 2' EXIT
    # shellcheck disable=SC1090
    source "$swin_file"
    trap - EXIT
    set +eu
fi
if ! command -v "$swin_python" >/dev/null; then
    printf 'error: there is no %s on this node; ' "$swin_python" >&2
elif ! "$swin_python" -c 'import sys, importlib.util as util; sys.exit(util.find_spec("torch") is None)'; then
    printf 'error: %s does not start, or has no torch; ' "$(command -v "$swin_python")" >&2
else
    return 0
fi
printf 'SWIN_ENV=%s is to name a virtual environment, or a file to source that sets one up\n' "$swin_place" >&2
exit 2
