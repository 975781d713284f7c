#!/bin/bash
# Builds what the test bed is made of, each part once, into the cache: Kubernetes and the CSI sidecars, etcd, the CSI driver, the images that
# pods run, Helm and promtool. Prints the cache's folders as a PATH, and the folder of the images first.
#
#   build.sh [deploy]      only what deploy/ is checked with: Helm and promtool
set -euo pipefail
shopt -s inherit_errexit

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${KEEPSET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keepset}"

# A name for all content given.
key() {
    cat "$@" | sha256sum | cut -c1-16
}

# The folder of a part, made by a command in a folder of its own when it isn't there. An interrupted build leaves nothing that looks whole.
part() {
    local about="$2" dir="$cache/testbed-$1-$3" make="$4"
    if [ ! -d "$dir" ]; then
        if ! command -v go >/dev/null; then
            echo "the test bed is built with Go: install Go $(sed -n 's/^go //p' "$here/k8s/go.mod") or newer (https://go.dev/dl) and run again" >&2
            exit 1
        fi
        echo "building $about for the test bed into $cache (once)" >&2
        rm -rf "$dir.building."*
        "$make" "$dir.building.$$" >&2
        mv -T "$dir.building.$$" "$dir"
    fi
    echo "$dir"
}

# Programs of one of the Go modules beside this script.
compile() {
    local module="$1" into="$2" version="$3"
    shift 3
    mkdir -p "$into"
    (cd "$here/$module" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $version" -o "$into/" "$@")
}

# Kubernetes reports a nonsense version where the linker doesn't give it one.
k8s() {
    local version client
    version="$(module '{{.Version}}' k8s.io/kubernetes)"
    client="$(module '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)"
    compile k8s "$1" "-X k8s.io/component-base/version.gitVersion=$version" tool
    mkdir "$1/crds"
    cp "$client"/config/crd/*storage.k8s.io_*.yaml "$1/crds/"
    chmod -R u+w "$1/crds"
}
module() {
    (cd "$here/k8s" && go mod download "$2" && go list -m -f "$1" "$2")
}

etcd() {
    compile etcd "$1" "" . tool
}

driver() {
    compile driver "$1" "" .
}

# Without these it takes itself for one of Kubernetes 1.20.
helm() {
    local version minor
    version="$(cd "$here/helm" && go list -m -f '{{.Version}}' helm.sh/helm/v3)"
    minor="$(cd "$here/helm" && go list -m -f '{{.Version}}' k8s.io/client-go | cut -d. -f2)"
    local vars="-X helm.sh/helm/v3/internal/version.version=$version"
    vars+=" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor"
    vars+=" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$minor"
    compile helm "$1" "$vars" tool
}

# Without the many ways to find what to scrape, of which checks of rules need none.
promtool() {
    compile promtool "$1" "" -tags remove_all_sd tool
}

# A root folder with busybox and a name for each of its applets.
busybox() {
    mkdir -p "$1/bin" "$1/tmp" "$1/etc"
    cp /bin/busybox "$1/bin/busybox"
    local applet
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    chmod 1777 "$1/tmp"
    printf 'root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$1/etc/group"
}

images() {
    local into="$1" root="$1/root"
    busybox "$root"
    "$here/oci.py" "$root" "$into/busybox.tar" localhost/busybox:1
    # A pod's sandbox needs a process that stays, and nothing else.
    "$here/oci.py" "$root" "$into/pause.tar" localhost/pause:1 --entrypoint sleep --entrypoint 2000000000
    cp "$etcd/etcd" "$etcd/etcdctl" "$root/bin/"
    "$here/oci.py" "$root" "$into/etcd.tar" localhost/etcd:1 --entrypoint etcd
    rm -rf "$root"
}

# One build at a time: a second one finds what the first has made.
mkdir -p "$cache"
exec 8>"$cache/testbed.lock"
flock 8
helm="$(part helm "Helm (some minutes)" "$(key "$here"/helm/go.{mod,sum})" helm)"
promtool="$(part promtool promtool "$(key "$here"/promtool/go.{mod,sum})" promtool)"
if [ "${1:-}" = deploy ]; then
    echo "$helm:$promtool"
    exit
fi
k8s="$(part k8s "Kubernetes and the CSI sidecars (8 minutes on 2 cores)" "$(key "$here/k8s/go.mod" "$here/k8s/go.sum")" k8s)"
etcd="$(part etcd etcd "$(key "$here"/etcd/{go.mod,go.sum,main.go})" etcd)"
driver="$(part driver "the CSI driver" "$(key "$here"/driver/{go.mod,go.sum,*.go})" driver)"
images="$(part images "images" "$(echo "$etcd" | key - /bin/busybox "$here/oci.py" "$here/build.sh")" images)"
echo "$images:$k8s:$etcd:$driver:$helm:$promtool"
