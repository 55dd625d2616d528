#!/usr/bin/env python3
"""How much longer a command takes on a machine that others use: alone, and beside processes that spin,
in alternation. Of the rounds the quickest and the median count; what is asked for is their ratio.

    tests/busy.py [--rounds 5] [--beside 2] ./steer generate MODEL PROMPT --max-new 32
"""
import argparse
import statistics
import subprocess
import sys
import time


def seconds(command, beside):
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
    try:
        time.sleep(0.3)  # they run by now
        started = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return time.monotonic() - started
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=int, default=2, help="processes that spin")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    alone, busy = [], []
    for _ in range(args.rounds):
        alone.append(seconds(args.command, 0))
        busy.append(seconds(args.command, args.beside))
    for name, times in ("alone", alone), (f"beside {args.beside}", busy):
        print(f"{name:10} {min(times):7.2f} s, median {statistics.median(times):.2f}, "
              f"at most {max(times):.2f}")
    print(f"ratio {min(busy) / min(alone):.2f} of the quickest, "
          f"{statistics.median(busy) / statistics.median(alone):.2f} of the medians")


main()
