#!/bin/bash
# The part of `make check` that needs tools of its own: dependencies (cargo-deny, cargo-machete) and spelling (typos).
set -euo pipefail

cache="${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}"
cargo="${CARGO:-cargo}"

# The path of a pinned tool, built into the cache when it isn't there.
tool() {
    local crate="$1" version="$2" binary="$3" root="$cache/tools/$1-$2"
    if [ ! -x "$root/bin/$binary" ]; then
        echo "building $crate $version for the checks into $cache (once, some minutes)" >&2
        # A folder of its own: the checkout's target folder stays as it is. Deleted afterwards, it is ten times the tool's size.
        "$cargo" install --quiet --locked --root "$root" --target-dir "$cache/build/$crate" "$crate@$version" </dev/null >&2
        rm -rf "$cache/build/$crate"
    fi
    echo "$root/bin/$binary"
}

deny="$(tool cargo-deny 0.20.2 cargo-deny)"
machete="$(tool cargo-machete 0.9.2 cargo-machete)"
typos="$(tool typos-cli 1.52.0 typos)"

"$deny" --locked check --hide-inclusion-graph bans licenses sources
if timeout 20 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD </dev/null >/dev/null 2>&1; then
    "$deny" --locked check --hide-inclusion-graph advisories
else
    echo "SKIPPED: advisories, since the RustSec database at github.com cannot be reached from here" >&2
fi
"$machete" --with-metadata
"$typos"
echo "check: dependencies and spelling are clean"
