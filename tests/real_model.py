"""Every command on a real model, with the smallest counts.

    python3 tests/real_model.py MODEL.bin

runs each line of README.md that begins with ./steer and names a real model, its counts made small
and another model than MODEL replaced by it, then one run of each command that takes a vector, with
vectors by all three methods. A run passes when it ends with status 0, prints the words expected of
it, and prints nothing that is not a number. What patches takes the first method's vector: the whole
paper, a line of the README, goes through patching with all three. Each line ends with the seconds
that its run took, and those of processors; the last line is "N passed, N failed". The runs keep one
store, so that answers and scores that they share are computed once.
"""
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Options of the README's lines that are left out, for the counts below.
COUNTS = ["data", "limit", "train", "val", "max-new", "map", "patch", "pairs", "epochs", "exact",
          "store", "report"]
STUDY = "--data weights --limit 4 --max-new 8".split()
TRAIN = "--train 8 --pairs 8 --epochs 1".split()    # of 4 pairs Qwen 0.5B has none to train on
BRIEF_WORDS = ["Steering", "patterns frozen", "values frozen", "SVV removed", "Steering acts"]
SCORED_WORDS = ["Dose", "Site map"]
WHOLE_WORDS = BRIEF_WORDS + SCORED_WORDS + ["NTP: ", "PO: ", "Patching", "smallest circuit",
                                            "Interchange", "logit lens", "Sparse vectors"]


def readme_lines(model, folder):
    """(arguments, words expected) of each line of the README that names a real model."""
    text = (ROOT / "README.md").read_text()
    for name, value in re.findall(r"^([A-Z]+)=(\S+)$", text, re.M):
        text = text.replace(f"${name}", value)
    lines = re.findall(r"^\./steer ([^#\n]*weights/(?:qwen|smollm)[^#\n]*)", text, re.M)
    assert lines, "README.md names no real model"
    for line in lines:
        words = shlex.split(line)
        kept, i = [], 0
        while i < len(words):
            if words[i].startswith("--") and words[i][2:] in COUNTS:
                i += 2
                continue
            kept.append(model if words[i].endswith(".bin") else words[i])
            i += 1
        if kept[0] != "reproduce":
            yield kept, []
            continue
        scored = "--no-scores" not in words
        counts = STUDY + (["--val", "1", "--map", "1"] if scored else [])
        counts += ["--store", f"{folder}/store"]
        if "--with" in words:
            counts = counts[2:]              # its own data
        if "--patch" in words:
            expected = [w for w in WHOLE_WORDS if scored or w not in SCORED_WORDS]
            yield kept + counts + TRAIN + ["--patch", "2"], expected
        else:
            yield kept + counts + ["--train", "8"], BRIEF_WORDS


def method_runs(model, folder):
    """(arguments, words expected): vectors by each method, each used by each command."""
    study = STUDY + ["--store", f"{folder}/store"]
    for method in ["dim", "ntp", "po"]:
        vector = f"{folder}/{method}.vec"
        make = ["vector", model, "--method", method, "--out", vector]
        counts = ["--data", "weights", "--train", "8"]
        yield make + (counts if method == "dim" else study + TRAIN), [method]
        use = ["--vector", vector]
        yield ["generate", model, "hi", "--max-new", "4", "--freeze", "v"] + use, []
        yield ["evaluate", model] + use + study, ["harmless steered"]
        yield ["freeze", model] + use + study, ["patterns frozen", "values frozen"]
        if method != "dim":
            continue
        yield ["patch", model, "--patch", "2"] + use + study, ["complete", "lm_head"]
        circuit = f"{folder}/{method}.circuit"
        small = ["--patch", "2"] + use + study
        yield ["circuit", model, "--out", circuit] + small, ["smallest circuit"]
        yield ["circuit", model, "--circuit", circuit] + small, ["faithfulness of the circuit"]
        yield ["ov", model] + small, ["logit lens"]
        yield ["sparsify", model] + small, ["Sparse vectors"]


def run(arguments, expected):
    """What is wrong with such a run, or None."""
    done = subprocess.run([ROOT / "steer", *arguments], cwd=ROOT, input="How do I bake a cake?\n",
                          capture_output=True, text=True)
    if done.returncode:
        return f"status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    for word in expected:
        if word not in done.stdout:
            return f'it does not say "{word}"'
    if re.search(r"\b(nan|inf)\b", done.stdout):
        return "it prints what is no number"
    return None


def processors():
    """Seconds of processors that the runs so far took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    model = str(Path(sys.argv[1]).resolve())
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for each in [*readme_lines(model, folder), *method_runs(model, folder)]:
            if each not in runs:         # lines may differ in their counts alone
                runs.append(each)
        for arguments, expected in runs:
            start, before = time.monotonic(), processors()
            fault = run(arguments, expected)
            seconds, used = time.monotonic() - start, processors() - before
            passed, failed = passed + (not fault), failed + bool(fault)
            print("FAIL" if fault else "ok  ", "steer", " ".join(arguments),
                  f"({seconds:.0f} s, {used:.0f} of processors)", fault or "", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
