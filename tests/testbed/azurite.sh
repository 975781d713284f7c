#!/bin/bash
# Prints the path of Azurite's blob server, installed from the lock file beside this script at first and taken from the cache afterwards.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/azurite" && pwd)"
cache="${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}"
key="$(sha256sum <"$here/package-lock.json" | cut -c1-16)"
place="$cache/azurite-$key"
if [ ! -e "$place/node_modules/azurite/dist/src/blob/main.js" ]; then
    if ! command -v npm >/dev/null; then
        echo "the tests need Azurite, which npm installs: install Node.js 18 or newer with npm and run again" >&2
        exit 1
    fi
    echo "installing Azurite for the tests into $cache (once)" >&2
    mkdir -p "$cache"
    # Installed beside its place and moved: an interrupted install leaves nothing that looks whole.
    rm -rf "$place.$$" && mkdir "$place.$$"
    trap 'rm -rf "$place.$$"' EXIT
    cp "$here/package.json" "$here/package-lock.json" "$place.$$/"
    (cd "$place.$$" && npm ci --omit=optional --ignore-scripts --no-audit --no-fund >&2)
    rm -rf "$place" && mv "$place.$$" "$place"
fi
echo "$place/node_modules/azurite/dist/src/blob/main.js"
