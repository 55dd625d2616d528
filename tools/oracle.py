"""Writes or checks tests/golden/*.txt, what the reference computes and steer.c is judged against.

    python tools/oracle.py                      writes all groups: random box dim means tokens split pieces
                                                exact64 where patch train intervals
    python tools/oracle.py random box           writes these
    python tools/oracle.py --check random       compares with the file on disk, writes nothing

Each group is a function of a golden_*.py, whose docstring describes the file. Needs the second group
of requirements.txt; intervals needs the last one instead.
"""
import argparse
import importlib
import pathlib
import sys


GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
GROUPS = {"random": "golden_runs", "box": "golden_runs", "dim": "golden_runs", "means": "golden_runs",
          "tokens": "golden_text", "split": "golden_text", "pieces": "golden_text", "exact64": "golden_runs",
          "where": "golden_runs", "patch": "golden_patch", "train": "golden_train",
          "intervals": "golden_intervals"}


def lines_of(group):
    """A group's lines, made anew by its writer on one thread and without gradients but its own."""
    if group != "intervals":
        import torch
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
    return getattr(importlib.import_module(GROUPS[group]), group + "_group")()


def differ(a, b, tolerance, each):
    """Whether two lines differ: in a word, or in a number by more than a share of the line's largest
    number (each: of its own size)."""
    a, b = a.split(), b.split()
    unequal = [i for i, (x, y) in enumerate(zip(a, b)) if x != y]
    if len(a) != len(b) or 0 in unequal:
        return True
    try:
        size = max((abs(float(y)) for y in b[1:] if not each), default=0)
        return any(not abs(float(a[i]) - float(b[i])) <= tolerance * max(size, abs(float(b[i])))
                   for i in unequal)
    except ValueError:                        # a word
        return True


def differences(old, new, tolerance, each):
    if len(old) != len(new):
        yield f"{len(old)} lines instead of {len(new)}"
    for i, (a, b) in enumerate(zip(old, new), 1):
        if a != b and differ(a, b, tolerance, each):
            yield f"line {i}: {a[:60]} ... but now {b[:60]} ..."


def main():
    p = argparse.ArgumentParser(description="Write or check tests/golden/*.txt.")
    p.add_argument("groups", nargs="*", default=list(GROUPS), metavar=" ".join(GROUPS))
    p.add_argument("--check", action="store_true", help="compare with the files on disk, write nothing")
    p.add_argument("--tolerance", type=float, default=5e-6,
                   help="of --check, relative to a line's largest number (intervals: to each number); "
                   "PyTorch's float32 sums alone differ by up to 2e-6 from one kind of processor to another")
    a = p.parse_args()
    if set(a.groups) - set(GROUPS):
        p.error(f"no such group: {' '.join(set(a.groups) - set(GROUPS))}; there are {' '.join(GROUPS)}")
    bad = 0
    for g in a.groups:
        path, text = GOLDEN / f"{g}.txt", lines_of(g)
        if a.check:
            wrong = list(differences(path.read_text().splitlines(), text, a.tolerance, g == "intervals"))
            bad += len(wrong)
            for w in [*wrong[:5], f"{len(wrong)} lines differ of {len(text)}"]:
                print(f"{path.name}: {w}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(text) + "\n")
            print(f"{path.name}: {len(text)} lines, {path.stat().st_size} bytes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
