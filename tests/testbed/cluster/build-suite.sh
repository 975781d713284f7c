#!/bin/bash
# Builds the program and the cluster suites, and puts the suites where suite.sh finds them.
#
#   build-suite.sh TARGET-FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

target="${1:?the folder of built programs is missing}"
rm -rf "$target/e2e"
mkdir -p "$target/e2e"
suites=()
for file in tests/cluster*.rs; do
    suites+=(--test "$(basename "$file" .rs)")
done
"${CARGO:-cargo}" build --locked --target-dir "$target"
"${CARGO:-cargo}" test --locked --no-run --target-dir "$target" "${suites[@]}" --message-format=json |
    python3 -c 'import json, os, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable") and built["target"]["kind"] == ["test"]:
        os.symlink(built["executable"], os.path.join(sys.argv[1], built["target"]["name"]))' "$target/e2e"
