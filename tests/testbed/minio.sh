#!/bin/bash
# Prints the path of a MinIO server, built from the Go module beside this script at first and taken from the cache afterwards.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/minio" && pwd)"
cache="${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}"
key="$(cat "$here/go.mod" "$here/go.sum" | sha256sum | cut -c1-16)"
minio="$cache/minio-$key/minio"
if [ ! -x "$minio" ]; then
    if ! command -v go >/dev/null; then
        echo "the tests need MinIO, which is built with Go: install Go $(sed -n 's/^go //p' "$here/go.mod") or newer (https://go.dev/dl) and run again" >&2
        exit 1
    fi
    echo "building MinIO for the tests into $cache (once, some minutes)" >&2
    mkdir -p "${minio%/*}"
    # Built beside its place and moved: an interrupted build leaves nothing that looks whole.
    (cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$minio.$$" github.com/minio/minio >&2)
    mv "$minio.$$" "$minio"
fi
echo "$minio"
