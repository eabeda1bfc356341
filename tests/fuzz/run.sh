#!/bin/sh
# Fuzzes every target of a fuzz build for a while: tests/fuzz/run.sh BUILD [SECONDS]. New inputs go to
# BUILD/corpus/NAME, crashes to BUILD/crash/; tests/fuzz/corpus is only read. Ends with 1 on a crash.
set -eu

build=$(cd "${1:?the fuzz build folder}" && pwd)
seconds=${2:-60}
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$build/crash"
failed=0
for target in "$build"/tests/fuzz/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    name=$(basename "$target")
    name=${name#fuzz_}
    set --
    for dict in "$here/$name.dict" "$here/${name%%_*}.dict"; do
        [ $# -gt 0 ] || [ ! -f "$dict" ] || set -- "-dict=$dict"
    done
    mkdir -p "$build/corpus/$name"
    echo "=== $name, $seconds s"
    "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/crash/$name-" "$@" \
        "$build/corpus/$name" "$here/corpus/$name" 2>&1 | tail -n 12 || failed=1
done
[ -z "$(ls "$build/crash")" ] || failed=1
exit $failed
