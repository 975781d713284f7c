#!/bin/bash
# Takes a test bed down, alive or dead, and fails if anything of it is left.
#
#   down.sh [FOLDER]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
use_bed "${1:-}"
! inside || fail "cannot take down the bed from inside it"

if [ -z "${KEEPSET_BED_LOCKED:-}" ]; then
    exec 9>"$bed.lock"
    flock 9
fi
[ -e "$bed" ] || [ -n "$(groups_left)" ] || { rm -f "$bed.lock"; echo "testbed: nothing is up at $bed" >&2; exit 0; }
[ ! -e "$bed" ] || [ -e "$(marker)" ] || fail "$bed is no test bed's folder: left as it is"

# A frozen process does not die.
for group in $(groups_left); do
    [ ! -e "$group/freezer.state" ] || echo THAWED >"$group/freezer.state"
    [ ! -e "$group/cgroup.freeze" ] || echo 0 >"$group/cgroup.freeze"
done 2>/dev/null
# With the first process of a process namespace the kernel ends all others of it, then go the mounts and the network.
if alive; then
    kill -9 "$init" 2>/dev/null || true
fi

# Waits until a command prints nothing; says what it printed where that takes too long.
gone() {
    local what="$1" left
    shift
    for _ in $(seq 100); do
        left="$("$@")"
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    echo "testbed: $what left behind:" >&2
    echo "$left" >&2
    leftover=1
}
stray() {
    local process
    for process in $(inhabitants); do
        ps -o pid=,args= -p "$process" || true
    done
}
remove_groups() {
    local group
    for group in $(groups_left); do
        rmdir "$group" 2>/dev/null || true
    done
    groups_left
}
# A device on the list may be another program's by now: that one has another file behind it.
loops() {
    local device inode disk now
    while read -r device inode disk; do
        read -r -a now < <(losetup --list --noheadings --output NAME,BACK-INO,BACK-MAJ:MIN "$device" 2>/dev/null) || true
        if [ "${now[*]}" = "$device $inode $disk" ]; then
            losetup --detach "$device" 2>/dev/null || true
            losetup --list --noheadings --output NAME,BACK-FILE "$device" 2>/dev/null || true
        fi
    done < <([ ! -f "$bed/loops" ] || cat "$bed/loops")
    losetup --list --noheadings --output NAME,BACK-FILE | grep -F " $bed/" || true
}
mounts() {
    grep -F " $bed/" /proc/self/mountinfo || true
}
leftover=
gone processes stray
gone "control groups" remove_groups
gone "loop devices" loops
gone mounts mounts
[ -z "$leftover" ] || exit 1
rm -rf --one-file-system "$bed"
# The place where claims of the class "hostpath" lie, empty outside the beds. Removing it would unmount it in another bed.
if ! grep -qs ' /tmp/hostpath_pv ' /proc/[0-9]*/mountinfo; then
    rmdir /tmp/hostpath_pv 2>/dev/null || true
fi
[ -n "${KEEPSET_BED_LOCKED:-}" ] || rm -f "$bed.lock"
echo "testbed: down, nothing left" >&2
