#!/bin/bash
# Brings up a Kubernetes cluster of one node on this machine, with MinIO beside it: real programs, no image registry, no container
# engine. All of it lives in namespaces of its own, so that nothing of it is seen outside, and ends with the first process in them.
#
#   up.sh [FOLDER]      ($TMPDIR/keepset-bed where left out; enter.sh runs commands inside, down.sh ends it)
#
# A bed that is up already is left as it is. One that died is cleared away first.
set -euo pipefail
shopt -s inherit_errexit
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
use_bed "${1:-}"

"$here/../packages.sh" cluster
programs="$("$here/build.sh")"
minio="$("$here/../minio.sh")"

mkdir -p "${bed%/*}"
exec 9>"$bed.lock"
flock 9
if alive && [ -f "$bed/env" ]; then
    echo "testbed: up already at $bed" >&2
    exit 0
fi
if [ -e "$bed" ]; then
    [ -e "$(marker)" ] || fail "$bed is there and is no test bed's folder: give another"
    echo "testbed: clearing away what an earlier bed left at $bed" >&2
    KEEPSET_BED_LOCKED=1 "$here/down.sh" "$bed"
fi
mkdir -m 755 "$bed" "$bed/log"
touch "$(marker)"
# On a system where these are modules; built in elsewhere.
for module in overlay br_netfilter nf_tables btrfs loop; do
    modprobe -q "$module" 2>/dev/null || true
done

give_up() {
    trap - EXIT INT TERM
    if [ -f "$bed/failed" ]; then
        echo "testbed: $(cat "$bed/failed")" >&2
    else
        echo "testbed: did not come up" >&2
    fi
    tail -n 5 "$bed/log/init.log" >&2 || true
    mkdir -p "$bed.logs" && cp -r "$bed/log/." "$bed.logs/" && echo "testbed: all logs are in $bed.logs" >&2
    KEEPSET_BED_LOCKED=1 "$here/down.sh" "$bed"
    rm -f "$bed.lock"
    exit 1
}
trap give_up EXIT
trap 'exit 130' INT TERM

began=$SECONDS
# A session of its own: Ctrl-C on the terminal from which it was started does not reach it.
setsid unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc --propagation private \
    "$here/init.sh" "$bed" "$id" "$programs" "$minio" </dev/null >"$bed/log/init.log" 2>&1 9>&- &
outer=$!
until init="$(cat "/proc/$outer/task/$outer/children" 2>/dev/null | tr -d ' ')" && [ -n "$init" ] && [ -e "$bed/born" ]; do
    kill -0 "$outer" 2>/dev/null || give_up
    sleep 0.05
done
for kind in pid net mnt; do
    readlink "/proc/$init/ns/$kind"
done >"$bed/namespaces"
echo "$init $(readlink "/proc/$init/ns/mnt")" >"$bed/init"

until [ -f "$bed/env" ]; do
    alive && [ ! -f "$bed/failed" ] && [ $((SECONDS - began)) -lt 180 ] || give_up
    sleep 0.1
done
trap - EXIT INT TERM
rm -rf "$bed.logs"
echo "testbed: up at $bed in $((SECONDS - began)) s; $here/enter.sh kubectl get nodes" >&2
