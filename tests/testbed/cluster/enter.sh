#!/bin/bash
# Runs a command inside a running test bed, in the same working folder, with the bed's settings: KUBECONFIG, PATH and KEEPSET_BED_…
#
#   enter.sh [--bed FOLDER] COMMAND…
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

take_bed "$@"
shift "$taken"
[ $# -gt 0 ] || fail "usage: enter.sh [--bed FOLDER] COMMAND…"
alive || fail "no bed is up at $bed: start it with up.sh"
[ -f "$bed/env" ] || fail "the bed at $bed is not ready"
set -a
. "$bed/env"
set +a
! inside || exec "$@"
exec nsenter --target "$init" --mount --net --pid --ipc --uts sh -c 'cd "$0" && exec "$@"' "$PWD" "$@"
