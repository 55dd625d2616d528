#!/usr/bin/env bash
# The same bits from every compiler, optimisation and width of vectors that multiplies and adds in
# one step, NEON among them: logits and edge scores of the models in the box, built in each way, by
# their checksums.
# The C library's functions (exp, log) are the machine's own in all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
ids="1 5 9 100 200 300 17 3 40 50 60 70 80 90 2 1000 1500 1100 7 8 9 10 11 12"

widths=("")
case $(uname -m) in
x86_64)
    grep -qw fma /proc/cpuinfo && widths=("-march=x86-64-v3")
    ! grep -qw avx512vl /proc/cpuinfo || widths+=("-march=x86-64-v4")
    ;;
esac
make -s steer
./steer vector weights/tiny-llama.bin --site 1,-4 --train 8 --out "$work/vector" >/dev/null 2>&1
passed=0 failed=0 first=
check() { # WHAT RUN...: the checksum of what the probe, so run, writes
    local what=$1 sum
    shift
    for model in tiny-llama tiny-gemma; do
        echo "$ids" | "$@" logits weights/$model.bin "$work/$model"
    done
    echo "$ids" | "$@" scores weights/tiny-llama.bin "$work/vector" 9 "$work/scores"
    sum=$(cat "$work/tiny-llama" "$work/tiny-gemma" "$work/scores" | cksum)
    : "${first:=$sum}"
    if [ "$sum" = "$first" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $what: checksum $sum, the first was $first"
    fi
}
for compiler in gcc clang; do
    command -v $compiler >/dev/null || { echo "no $compiler"; continue; }
    for level in -O1 -O2 -O3; do
        for width in "${widths[@]}"; do
            $compiler -std=gnu11 $level $width -DSTEER_NO_MAIN -I. tests/probe.c steer.c -lm \
                -o "$work/probe"
            check "$compiler $level $width" "$work/probe"
        done
    done
done
# clang takes the parts of -ffast-math alone, and no macro tells: sums keep their order all the same.
if command -v clang >/dev/null; then
    cp "$work/tiny-llama" "$work/exact"
    clang -std=gnu11 -O2 "${widths[0]}" -funsafe-math-optimizations -DSTEER_NO_MAIN -I. tests/probe.c \
        steer.c -lm -o "$work/probe"
    echo "$ids" | "$work/probe" logits weights/tiny-llama.bin "$work/tiny-llama"
    if paste <(od -An -v -w4 -tf4 "$work/exact") <(od -An -v -w4 -tf4 "$work/tiny-llama") |
        awk '{ d = $1 - $2; if (!(d * d < 1e-8)) exit 1 }'; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL clang -funsafe-math-optimizations: logits are more than 1e-4 off"
    fi
fi
# NEON: clang crosses over (gcc's cross compiler can't stand beside the one for 32 bits), qemu runs it.
cross="clang --target=aarch64-linux-gnu -fuse-ld=lld -static"
if [ -n "${widths[0]}" ] && command -v qemu-aarch64 >/dev/null &&
    echo 'int main(void) { return 0; }' | $cross -x c - -o "$work/none" 2>/dev/null; then
    $cross -std=gnu11 -O2 -DSTEER_NO_MAIN -I. tests/probe.c steer.c -lm -o "$work/probe"
    check "NEON" qemu-aarch64 "$work/probe"
else
    echo "NEON is not checked: that needs clang, lld, a C library for aarch64, qemu-aarch64 and FMA here"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
