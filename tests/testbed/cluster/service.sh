#!/bin/bash
# Ends a program of a running test bed as a power cut would, and starts it again.
#
#   service.sh [--bed FOLDER] stop|start|restart NAME      such as: service.sh stop minio
#
# A driver's sidecars end by themselves when it does: stop and start them with it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

take_bed "$@"
shift "$taken"
alive || fail "no bed is up at $bed: start it with up.sh"
[ $# -eq 2 ] && [ -e "$bed/services/$2.pid" ] ||
    fail "usage: service.sh [--bed FOLDER] stop|start|restart NAME; names: $(cd "$bed/services" && ls -- *.pid | sed 's/\.pid$//' | paste -sd ' ')"
# Process ids are those of the bed.
inside || exec "$here/enter.sh" --bed "$bed" "$here/service.sh" --bed "$bed" "$@"
service="$bed/services/$2"

running() {
    [ -d "/proc/$(cat "$service.pid")" ]
}
stop() {
    # Before it ends, or its end would count as the bed's fault.
    touch "$service.stopped"
    kill -9 "$(cat "$service.pid")" 2>/dev/null || true
    for _ in $(seq 100); do
        running || return 0
        sleep 0.05
    done
    fail "$service does not end"
}
start() {
    ! running || fail "it runs already"
    setsid "$service" </dev/null &
    echo $! >"$service.pid"
    rm -f "$service.stopped"
}
case "$1" in
stop | start) "$1" ;;
restart) stop && start ;;
*) fail "stop, start or restart, not $1" ;;
esac
