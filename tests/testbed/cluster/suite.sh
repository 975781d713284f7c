#!/bin/bash
# The cluster suite inside a running test bed: gives it the program as an image, then runs the tests. What it runs must be built: there is
# no network inside.
#
#   suite.sh TARGET-FOLDER [FILTER…]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

target="${1:?the folder of built programs is missing}"
shift
export KEEPSET_TEST_IMAGE=localhost/keepset:bed
"$here/load-image.sh" --bed "$KEEPSET_BED" "$KEEPSET_TEST_IMAGE" "$target/debug/keepset"
for suite in "$target"/e2e/*; do
    "$suite" --test-threads="${KEEPSET_E2E_THREADS:-3}" "$@"
done
