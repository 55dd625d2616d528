#!/usr/bin/env bash
# The same bits from every compiler, optimisation and width of vectors that multiplies and adds in
# one step: logits and edge scores of the models in the box, built in each way, by their checksums.
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
for compiler in gcc clang; do
    command -v $compiler >/dev/null || { echo "no $compiler"; continue; }
    for level in -O1 -O2 -O3; do
        for width in "${widths[@]}"; do
            $compiler -std=gnu11 $level $width -DSTEER_NO_MAIN -I. tests/probe.c steer.c -lm \
                -o "$work/probe"
            for model in tiny-llama tiny-gemma; do
                echo "$ids" | "$work/probe" logits weights/$model.bin "$work/$model"
            done
            echo "$ids" | "$work/probe" scores weights/tiny-llama.bin "$work/vector" 9 "$work/scores"
            sum=$(cat "$work/tiny-llama" "$work/tiny-gemma" "$work/scores" | cksum)
            : "${first:=$sum}"
            if [ "$sum" = "$first" ]; then
                passed=$((passed + 1))
            else
                failed=$((failed + 1))
                echo "FAIL $compiler $level $width: checksum $sum, the first was $first"
            fi
        done
    done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
