"""What was checked against a reference, kept in a report that results.py makes a table of.

    {"tokens llama3": {"program": ..., "date": ..., "command": ..., "figures": [{...}, ...]}, ...}

parity.py logits, tokenizer_parity.py and test_export.py networks keep an entry there with --report FILE, also
where something differs. It replaces the entry of its name; the others stay. Standard library only.
"""
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
figures = []                                  # since the last entry


def add(**figure):
    figures.append(figure)


def program():
    """The commit, and whether anything but reports was changed since."""
    if not shutil.which("git"):
        return "unknown"

    def git(*more):
        return subprocess.run(["git", *more], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!weights/reports")
    return (git("describe", "--always") or "unknown") + "-dirty" * bool(changed)


def keep(path, name):
    """The figures so far become the report's entry `name`; without a path they are dropped."""
    if path:
        path = Path(path)
        report = json.loads(path.read_text()) if path.exists() else {}
        command = " ".join([f"tools/{Path(sys.argv[0]).name}", *sys.argv[1:]])
        report[name] = {"program": program(), "date": time.strftime("%Y-%m-%d"),
                        "command": re.sub(r"(?<= )/\S*/(?=\S)", "", command),      # places of this machine
                        "figures": list(figures)}
        path.write_text(json.dumps(dict(sorted(report.items())), indent=1) + "\n")
    figures.clear()
