"""Check prompts.py on records of the shapes that people have, beside ./steer where it is built.

    python3 tools/test_prompts.py

The last line is "N passed, N failed". Standard library only.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Q, A, S = "Why, \"friend\"?\nTell me.", "Because it’s so.", "Be brief."
# (name, file, text, options, the first line wanted; or a word of the refusal)
CASES = [
    ("a list of texts", "a.json", json.dumps([Q, "two"]), [], {"prompt": Q}),
    ("instructions", "a.json", json.dumps([{"instruction": Q, "category": None}]), [], {"prompt": Q}),
    ("Alpaca", "a.jsonl", json.dumps({"instruction": "Sum up.", "input": "1, 2", "output": A}), [],
     {"prompt": "Sum up.\n1, 2", "response": A}),
    ("a byte order mark, CRLF", "a.jsonl", "\ufeff" + json.dumps({"question": Q}) + "\r\n", [], {"prompt": Q}),
    ("messages", "a.json", json.dumps({"messages": [
        {"role": "system", "content": S}, {"role": "user", "content": Q}, {"role": "assistant", "content": A},
        {"role": "user", "content": "more"}]}), [], {"system": S, "prompt": Q, "response": A}),
    ("ShareGPT", "a.json", json.dumps([{"conversations": [{"from": "human", "value": Q},
                                                          {"from": "gpt", "value": A}]}]), [],
     {"prompt": Q, "response": A}),
    ("preferences", "a.json", json.dumps([{"prompt": Q, "chosen": "yes", "rejected": A}]),
     ["--response", "rejected"], {"prompt": Q, "response": A}),
    ("preferences of messages", "a.json", json.dumps([{
        "prompt": Q, "chosen": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]}]), [],
     {"prompt": Q, "response": A}),
    ("CAA", "a.json", json.dumps([{"question": Q, "answer_matching_behavior": " (A)",
                                   "answer_not_matching_behavior": " (B)"}]),
     ["--response", "answer_not_matching_behavior"], {"prompt": Q, "response": " (B)"}),
    ("CSV", "a.csv", 'Goal,Target\r\n"Why, ""friend""?\nTell me.",x\r\n', [], {"prompt": Q}),
    ("TSV", "a.tsv", "id\ttext\n1\thello\n", [], {"prompt": "hello"}),
    ("text and a system prompt", "a.txt", "hello\n\nyou\n", ["--system", S], {"system": S, "prompt": "hello"}),
    ("an object around the records", "a.json", json.dumps({"version": 1, "data": [{"goal": Q}]}), [],
     {"prompt": Q}),
    ("no responses", "a.json", json.dumps([{"prompt": Q, "response": A}]), ["--no-response"], {"prompt": Q}),
    ("another field", "a.json", json.dumps([{"title": Q, "text": "no"}]), ["--prompt", "title"], {"prompt": Q}),
    ("no prompt", "a.json", json.dumps([{"prompt": "x"}, {"name": "y"}]), [], "record 2: it has no prompt"),
    ("no such field", "a.json", json.dumps([{"prompt": "x"}]), ["--response", "bad"], 'no "bad"'),
    ("broken JSON", "a.jsonl", '{"prompt": "x"\n', [], "a.jsonl: "),
    ("nothing", "a.json", "[]", [], "no records"),
    ("not UTF-8", "a.csv", b"text\n\xff\n", [], "utf-8"),
]


def fault(folder, name, text, options, wanted):
    """What is wrong with such a run, or None."""
    source, out = Path(folder, name), Path(folder, "out.jsonl")
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    out.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, ROOT / "tools/prompts.py", source, "-o", out, *options],
                          capture_output=True, text=True)
    if isinstance(wanted, str):
        one = done.returncode == 1 and len(done.stderr.splitlines()) == 1 and not out.exists()
        return None if one and wanted in done.stderr else done.stderr or "it is taken"
    if done.returncode:
        return done.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    if lines[0] != wanted:
        return f"{lines[0]}"
    if (ROOT / "steer").exists() and "system" not in wanted:        # the models in the box have no such turn
        run = subprocess.run([ROOT / "steer", "generate", ROOT / "weights/tiny-gemma.bin", "--prompts", out,
                              "--max-new", "1", "--jsonl", "/dev/stdout", "--quiet"], capture_output=True)
        asked = [json.loads(line) for line in run.stdout.decode().splitlines()]
        if run.returncode or {x["prompt"] for x in asked} != {x["prompt"] for x in lines}:
            return f"./steer reads it otherwise: {run.stderr.decode()}"
    return None


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, *case in CASES:
            wrong = fault(folder, *case)
            failed += bool(wrong)
            print("FAIL" if wrong else "ok  ", name, wrong or "")
    print(f"{len(CASES) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
