# What the test bed's scripts share; not run by itself.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

fail() {
    echo "testbed: $*" >&2
    exit 1
}

# Which bed is meant: the folder given, else $KEEPSET_BED, else the one of this user.
use_bed() {
    [ "$(id -u)" -eq 0 ] || fail "needs root, for namespaces, mounts and control groups"
    bed="$(realpath -m "${1:-${KEEPSET_BED:-${TMPDIR:-/tmp}/keepset-bed}}")"
    # Sockets lie in it, whose paths the kernel limits to 107 bytes.
    [ ${#bed} -le 48 ] || fail "$bed: the path of a run folder may have 48 bytes at most"
    [[ "$bed" != /run/* && "$bed" != /var/lib/* && "$bed" != /var/log/* ]] || fail "$bed: a run folder cannot lie there, since the bed has its own /run, /var/lib and /var/log"
    # Control groups and everything else outside the folder are named after it.
    id="keepset-bed-$(echo "$bed" | sha256sum | cut -c1-8)"
}

# The same by arguments that may begin with `--bed FOLDER`; `taken` is how many of them that was.
take_bed() {
    taken=0
    if [ "${1:-}" = --bed ]; then
        taken=2
        use_bed "${2:?--bed needs a folder}"
    else
        use_bed
    fi
}

# Written into a bed's folder before anything else: only a folder that holds it is ever removed.
marker() {
    echo "$bed/.keepset-bed"
}

# Whether the bed's first process lives. A number alone could be another process by now, its namespace can not; of mounts, since a
# process that is ending has left that one, while it still waits for a frozen one to end.
alive() {
    [ -s "$bed/init" ] || return 1
    read -r init namespace <"$bed/init"
    [ "$(readlink "/proc/$init/ns/mnt" 2>/dev/null)" = "$namespace" ] || inside
}

# Whether this script runs in the bed itself, where its first process has another number.
inside() {
    [ -s "$bed/init" ] && [ "$(cut -d' ' -f2 "$bed/init")" = "$(readlink /proc/self/ns/mnt)" ]
}

# The processes in the bed's namespaces, of which there is one kind for each of process ids, network and mounts.
inhabitants() {
    [ -s "$bed/namespaces" ] || return 0
    { find /proc/[0-9]*/ns/{pid,net,mnt} -maxdepth 0 -printf '%p %l\n' 2>/dev/null || true; } | { grep -F -f "$bed/namespaces" || true; } | cut -d/ -f3 | sort -u
}

# The bed's control groups, the innermost first.
groups_left() {
    local top
    for top in /sys/fs/cgroup "/sys/fs/cgroup/"*; do
        [ ! -d "$top/$id" ] || find "$top/$id" -depth -type d
    done
}
