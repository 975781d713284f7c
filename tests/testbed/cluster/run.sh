#!/bin/bash
# Brings up a test bed, runs a command inside it, and takes the bed down whatever happens. Ends as the command did; with an error too
# where something of the bed died meanwhile or is left afterwards. Logs of a failed run are kept in FOLDER.logs.
#
#   run.sh [--bed FOLDER] COMMAND…
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

take_bed "$@"
shift "$taken"
[ $# -gt 0 ] || fail "usage: run.sh [--bed FOLDER] COMMAND…"
! alive || fail "a bed is up at $bed already: use enter.sh, or down.sh first"

end() {
    code=$?
    trap - EXIT INT TERM
    if [ -s "$bed/ended" ]; then
        echo "testbed: ended before the bed did: $(paste -sd ' ' "$bed/ended")" >&2
        [ "$code" -ne 0 ] || code=1
    fi
    if [ "$code" -ne 0 ] && [ -d "$bed/log" ]; then
        rm -rf "$bed.logs"
        cp -r "$bed/log" "$bed.logs"
        echo "testbed: all logs are in $bed.logs" >&2
    fi
    "$here/down.sh" "$bed" || [ "$code" -ne 0 ] || code=1
    exit "$code"
}
"$here/up.sh" "$bed"
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$here/enter.sh" --bed "$bed" "$@"
