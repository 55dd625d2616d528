#!/usr/bin/env bash
# tests/fuzz.sh SECONDS [ENTRY...]: every entry of tests/fuzz.c for so long, or those named, as many
# at once as there are cores, from the inputs in tests/corpus. What an entry stops at is kept as
# tests/fuzz-ENTRY-...; `ENTRY=... tests/fuzz FILE` runs that input again. With SEED=N in the
# environment the mutations are the same each time. The last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/.."
export seconds=${1:-30}
[ $# -eq 0 ] || shift
work=$(mktemp -d)
export work
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- $(grep -o '{"[a-z]*", *fuzz_' tests/fuzz.c | cut -d'"' -f2)

one() { # ENTRY
    local entry=$1 log=$work/$1.log said=ok runs
    mkdir "$work/$entry"
    ENTRY=$entry tests/fuzz -max_total_time="$seconds" -seed="${SEED:-0}" -max_len=40000 \
        -timeout=60 -close_fd_mask=1 -print_final_stats=1 -artifact_prefix="tests/fuzz-$entry-" \
        "$work/$entry" "tests/corpus/$entry" >/dev/null 2>"$log" || said=FAIL
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    [ "${runs:-0}" -gt 100 ] || said=FAIL # it has to have run at all
    [ $said = ok ] || grep -av '^#[0-9]*[[:space:]][A-Z]' "$log" | head -60
    echo "$said $entry: ${runs:-0} executions" | tee "$work/$entry.result"
}
export -f one
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'one {}'
passed=$(cat "$work"/*.result | grep -c '^ok')
failed=$(($# - passed))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
