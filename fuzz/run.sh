#!/usr/bin/env bash
# Runs fuzz targets with libFuzzer, one after another: run.sh SECONDS [TARGET …]. Builds only these targets.
#
# New inputs go to target/fuzz/TARGET, inputs that found a fault to fuzz/libfuzzer/artifacts/TARGET. Fails if there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=$1
shift
# Sanitizers need a nightly toolchain, and find faults of unsafe code, of which parsers have none.
flags=(--fuzz-dir fuzz/libfuzzer --sanitizer none)
[ "$#" -gt 0 ] || read -ra targets -d '' < <(cargo fuzz list --fuzz-dir fuzz/libfuzzer) || true
[ "$#" -eq 0 ] || targets=("$@")

if [ "$#" -eq 0 ]; then
    cargo fuzz build "${flags[@]}" >&2
else
    for target in "${targets[@]}"; do cargo fuzz build "${flags[@]}" "$target" >&2; done
fi
failed=()
for target in "${targets[@]}"; do
    new=${CARGO_TARGET_DIR:-target}/fuzz/$target
    mkdir -p "$new"
    corpora=("$new" "fuzz/corpus/$target")
    [ ! -d "fuzz/regressions/$target" ] || corpora+=("fuzz/regressions/$target")
    options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1)
    # The first line of a dictionary names its targets.
    for dictionary in fuzz/dictionaries/*.dict; do
        if head -n 1 "$dictionary" | grep -qw "$target"; then options+=(-dict="$dictionary"); fi
    done
    echo "fuzz: $target for $seconds s"
    cargo fuzz run "${flags[@]}" "$target" "${corpora[@]}" -- "${options[@]}" || failed+=("$target")
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "fuzz: faults were found by: ${failed[*]}" >&2
    exit 1
fi
