#!/usr/bin/env python3
"""Data of other shapes made into prompts for ./steer: a JSON object with "prompt" a line, and where there
is one with "system" and "response".

    python tools/prompts.py FILE... -o OUT.jsonl
    python tools/prompts.py questions.txt --system "Answer in French." -o french.jsonl
    python tools/prompts.py pairs.json --response chosen -o with.jsonl

Read are JSON arrays, JSON lines, CSV and TSV with a head, and, named .txt, texts, one a line. The
prompt is the first of a record's fields PROMPT below that holds text (an "input" beside it follows on a
line of its own), or that of --prompt; the response likewise. Lists of messages, as "messages",
"conversations" or in the place of a text, give the system prompt, the first question and its answer;
what follows is left out, and counted. --system TEXT stands before all, --no-response leaves responses
out. Standard library only.
"""
import argparse
import csv
import io
import json
import sys
from pathlib import Path

PROMPT = ["prompt", "instruction", "question", "goal", "Goal", "query", "request", "behavior", "text"]
RESPONSE = ["response", "output", "answer", "completion", "chosen"]
MESSAGES = ["messages", "conversations", "conversation"]
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}


class Refused(Exception):
    """Why a record can't be taken, in one sentence."""


def records_of(path):
    """[record]: dicts, or texts, of a file of any of the shapes."""
    text = Path(path).read_bytes().decode("utf-8-sig")
    kind = Path(path).suffix.lower()
    if kind == ".txt":
        return [line for line in text.splitlines() if line.strip()]
    if kind in (".csv", ".tsv"):
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if kind == ".tsv" else ","))
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    if isinstance(whole, dict):              # {"data": [...]}, or a single record
        lists = [value for value in whole.values() if isinstance(value, list)]
        whole = lists[0] if len(lists) == 1 and not any(k in whole for k in PROMPT + MESSAGES) else [whole]
    return whole


def first_text(record, names):
    """(name, text or list) of the first of these fields that holds something."""
    return next(((name, record[name]) for name in names if record.get(name)), (None, None))


def spoken(messages):
    """({role: text} of the system, the first question and its answer, messages left over)"""
    said, order = {}, ["system", "user", "assistant"]
    for i, message in enumerate(messages):
        role = message.get("role") or message.get("from")
        role, text = ROLES.get(role, role), message.get("content") or message.get("value")
        if not isinstance(text, str):
            raise Refused(f"its message {i + 1} holds no text")
        if role not in order or role in said:
            return said, len(messages) - i
        said[role] = text
        order = order[order.index(role) + 1:]
    return said, 0


def line_of(record, prompt=None, response=None):
    """({"prompt": ..., ...}, messages left over) of one record; prompt, response: fields named by hand."""
    if isinstance(record, str):
        return {"prompt": record}, 0
    if not isinstance(record, dict):
        raise Refused("it is neither an object nor a text")
    left, said = 0, {}
    for wanted in (prompt, response):
        if wanted and not record.get(wanted):
            raise Refused(f'it has no "{wanted}"; there are {", ".join(record)}')
    name, asked = first_text(record, [prompt] if prompt else PROMPT + MESSAGES)
    _, answer = first_text(record, [response] if response else RESPONSE)
    if isinstance(asked, list):
        said, left = spoken(asked)
    elif isinstance(asked, str):
        said["user"] = asked
        if name == "instruction" and isinstance(record.get("input"), str) and record["input"].strip():
            said["user"] += "\n" + record["input"]
    if isinstance(answer, list):
        other, more = spoken(answer)
        said, left = {**other, **said, **{k: other[k] for k in other if k == "assistant"}}, left + more
    elif isinstance(answer, str):
        said["assistant"] = answer
    if isinstance(record.get("system"), str):
        said["system"] = record["system"]
    if not said.get("user", "").strip():
        raise Refused(f'it has no prompt; name its field with --prompt; there are {", ".join(map(str, record))}')
    names = {"system": "system", "user": "prompt", "assistant": "response"}
    return {names[k]: said[k] for k in ("system", "user", "assistant") if said.get(k)}, left


def lines_of(path, system=None, prompt=None, response=None, no_response=False):
    """(lines, messages left over) of a file, or Refused with its name and the record's number."""
    lines, left = [], 0
    try:
        records = records_of(path)
    except (OSError, ValueError, csv.Error) as e:
        raise Refused(f"{path}: {e}") from None
    for i, record in enumerate(records, 1):
        try:
            line, more = line_of(record, prompt, response)
        except Refused as e:
            raise Refused(f"{path}: record {i}: {e}") from None
        if system is not None:
            line = {"system": system, **{k: v for k, v in line.items() if k != "system"}}
        if no_response:
            line.pop("response", None)
        lines.append(line)
        left += more
    return lines, left


def main():
    p = argparse.ArgumentParser(description="Make prompts for ./steer of data of other shapes.")
    p.add_argument("files", nargs="+", metavar="FILE")
    p.add_argument("-o", "--out", required=True, metavar="OUT.jsonl")
    p.add_argument("--system", metavar="TEXT", help="the system prompt of all")
    p.add_argument("--prompt", metavar="FIELD", help="which field is the prompt")
    p.add_argument("--response", metavar="FIELD", help="which field is the response")
    p.add_argument("--no-response", action="store_true", help="leave responses out")
    a = p.parse_args()
    lines, left = [], 0
    try:
        for path in a.files:
            some, more = lines_of(path, a.system, a.prompt, a.response, a.no_response)
            lines, left = lines + some, left + more
        if not lines:
            raise Refused(f"{a.files[0]}: no records in it")
        Path(a.out).write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), encoding="utf-8")
    except (Refused, OSError) as e:
        sys.exit(f"prompts.py: {e}")
    with_response = sum("response" in x for x in lines)
    print(f"{a.out}: {len(lines)} prompts, {with_response} with a response"
          + (f"; {left} later messages are left out" if left else ""))


if __name__ == "__main__":
    main()
