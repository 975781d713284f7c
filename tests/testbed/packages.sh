#!/bin/bash
# Sees to the Debian packages that the tests need: stock restic as the oracle, setfattr and setfacl for trees of every kind, curl for
# what only a signed request gets, databases for the probes of drills, npm for the server that stands for Azure,
# openssl for servers' certificates. With the word "cluster": what the Kubernetes test bed runs on.
set -euo pipefail

# What must be there, a command or a path, and the package that brings it.
declare -A package=([restic]=restic [mkfs.btrfs]=btrfs-progs [losetup]=mount [setfattr]=attr [setfacl]=acl [curl]=curl [pg_ctlcluster]=postgresql
    [redis-check-rdb]=redis-tools [node]=nodejs [npm]=npm [openssl]=openssl)
if [ "${1:-}" = cluster ]; then
    package+=([containerd]=containerd [runc]=runc [/usr/lib/cni/bridge]=containernetworking-plugins [nft]=nftables
        [ip]=iproute2 [flock]=util-linux [resize2fs]=e2fsprogs [sysctl]=procps
        [strip]=binutils [python3]=python3)
fi
missing=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
# The bed's images have no libraries, so that another busybox will not do.
if [ "${1:-}" = cluster ] && ! { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }; then
    missing+=(busybox-static)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    echo "missing for the tests: ${missing[*]}; install them with your system's packages and run again" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    printf 'missing for the tests: %s; run this and then again:\n  sudo sh -c "%s"\n' "${missing[*]}" "$line" >&2
    exit 1
fi
echo "installing for the tests: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# What is installed for tests must not begin to serve on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
apt-get update -qq </dev/null >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
