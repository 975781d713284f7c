#!/bin/bash
# Sees to the Debian packages that the tests need: stock restic as the oracle, setfattr and setfacl for trees of every kind.
set -euo pipefail

declare -A package=([restic]=restic [setfattr]=attr [setfacl]=acl)
missing=()
for tool in restic setfattr setfacl; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
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
apt-get update -qq </dev/null >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
