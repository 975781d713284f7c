#!/bin/bash
# Makes an image of a program and gives it to a running test bed, in place of an image of the same name. The image holds the program
# without its symbols, the libraries that it is linked with, the certificates of this machine, and a user without rights.
#
#   load-image.sh [--bed FOLDER] NAME PROGRAM        such as: load-image.sh localhost/keepset:bed target/debug/keepset
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

take_bed "$@"
shift "$taken"
[ $# -eq 2 ] || fail "usage: load-image.sh [--bed FOLDER] NAME PROGRAM"
name="$1" program="$2"
alive || fail "no bed is up at $bed: start it with up.sh"
work="$(mktemp -d "$bed/image.XXXXXX")"
trap 'rm -rf "$work"' EXIT

root="$work/root" binary="$(basename "$program")"
mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
strip -o "$root/usr/local/bin/$binary" "$program"
chmod 755 "$root/usr/local/bin/$binary"
# A static program names none.
for library in $(ldd "$program" 2>/dev/null | grep -oE '/[^ ]+'); do
    install -D -m 755 "$(realpath "$library")" "$root$library"
done
printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
"$here/oci.py" "$root" "$work/image.tar" "$name" --entrypoint "/usr/local/bin/$binary" --user 65532:65532
"$here/enter.sh" --bed "$bed" ctr -n k8s.io images import "$work/image.tar" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the image was not imported"; }
echo "testbed: $name is $program now" >&2
