"""Hold ./steer against transformers and tokenizers on a real model's file.

    python3 tools/parity.py logits MODEL.bin               20 texts of 200 tokens, the same weights in
                                                           PyTorch (float32, eager attention)
    python3 tools/parity.py tokens MODEL.bin FILE.gguf     10,000 strings and some conversations; the
                                                           reference is built from the GGUF, not from MODEL
    python3 tools/parity.py patch MODEL.bin --vector V     scores of all edges of one example, both forms,
                                                           against reference_graph.py in float64

Exit status 1 if logits differ by more than 1e-3, an argmax differs where the reference's first two
logits are that far apart, or any token differs. Use a MODEL.bin in f32 (export.py --dtype f32) to
compare arithmetic alone; bf16 files are widened for PyTorch, so they compare as well. MODEL.bin may
also be one of the small models in weights/. logits --report FILE keeps the figures (checked.py).
"""
import argparse
import importlib
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import binfile
import chat_template
import checked
import export

MODULES = ("argparse ast bisect calendar cmd codecs csv dataclasses difflib email enum fractions heapq "
           "inspect json mailbox pickle random shelve textwrap").split()


def run(command, stdin=None):
    done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"parity: {' '.join(map(str, command[:4]))} ... failed with status {done.returncode}")
    return done.stdout


def probe():
    subprocess.run(["make", "-s", "tests/probe"], check=True, cwd=export.ROOT)
    return export.ROOT / "tests/probe"


# ---- logits --------------------------------------------------------------------------------------

def logits(args):
    import torch

    import reference
    torch.set_num_threads(args.threads)
    config, t, tensors, name, _ = binfile.read(args.model)
    n = min(args.length, config["max_seq"])
    begin = [i for i, s in enumerate(t["tokens"]) if t["types"][i] == 1 and s.decode() == t["template"]["start"] != ""]
    texts = [Path(importlib.import_module(m).__file__).read_text()[:20 * n].encode().hex()
             for m in MODULES[:args.texts]]                  # English and code of Python's own library
    with tempfile.TemporaryDirectory() as tmp:
        lines = Path(tmp, "lines")
        lines.write_text("".join(s + "\n" for s in texts))
        got = run([probe(), "tokens", args.model], stdin=open(lines)).decode().split("\n")[:-1]
    rows = [(begin + list(map(int, line.split())))[:n] for line in got]
    assert all(len(ids) == n for ids in rows)
    with tempfile.TemporaryDirectory() as tmp:
        ids_file, raw = Path(tmp, "ids"), Path(args.raw or Path(tmp, "logits"))
        ids_file.write_text("".join(" ".join(map(str, r)) + "\n" for r in rows))
        if not args.reuse:
            run([probe(), "logits", args.model, str(raw)], stdin=open(ids_file))
        ours = np.memmap(raw, np.float32, "r")
        if ours.size != len(rows) * n * config["vocab"]:
            sys.exit(f"parity: {ours.size} logits, expected {len(rows)} x {n} x {config['vocab']}")
        ours = ours.reshape(len(rows), n, config["vocab"])
        model = reference.network(config, tensors)
        worst, agree, near, mean, size = 0.0, 0, 0, 0.0, 0.0
        for i, ids in enumerate(rows):
            with torch.no_grad():
                want = model(torch.tensor([ids])).logits[0].numpy()
            diff = np.abs(ours[i] - want)
            worst = max(worst, float(diff.max()))
            mean += float(diff.mean()) / len(rows)
            size = max(size, float(np.abs(want).max()))
            same = ours[i].argmax(-1) == want.argmax(-1)
            agree += int(same.sum())
            for p in np.flatnonzero(~same):
                a, b = np.sort(want[p])[-2:]
                near += int(b - a < args.tolerance)
                print(f"text {i} position {p}: another argmax; the reference's first two are "
                      f"{b - a:.2g} apart")
    total = len(rows) * n
    print(f"{name} ({args.model}): {len(rows)} texts of {n} tokens: logits differ by at most {worst:.2g} "
          f"(mean {mean:.2g}, largest logit {size:.0f}), argmax equal at {agree} of {total} positions")
    checked.add(texts=len(rows), length=n, largest=worst, equal=agree, of=total)
    checked.keep(args.report, f"logits {name}, {len(rows)} of {n}")
    return worst <= args.tolerance and agree + near == total


# ---- tokens --------------------------------------------------------------------------------------

RANGES = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x530), (0x530, 0x590),
          (0x590, 0x600), (0x600, 0x700), (0x900, 0x980), (0x980, 0xA00), (0xB80, 0xC00), (0xE00, 0xE80),
          (0xF00, 0x1000), (0x10A0, 0x1100), (0x1100, 0x1200), (0x1200, 0x1380), (0x1780, 0x1800),
          (0x1E00, 0x1F00), (0x1F00, 0x2000), (0x2000, 0x2070), (0x2070, 0x20D0), (0x2100, 0x2190),
          (0x2190, 0x2400), (0x2460, 0x2500), (0x2600, 0x27C0), (0x3000, 0x3040), (0x3040, 0x3100),
          (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0xFB1D, 0xFB50), (0xFF00, 0xFFF0),
          (0x1D15E, 0x1D1C0), (0x1D400, 0x1D800), (0x1F300, 0x1F700), (0x1F900, 0x1FA00),
          (0x20000, 0x2A6E0), (0x2F800, 0x2FA20)]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n ", "\r", "\u00a0", "\u2003", "\u3000", "\x0b",
          "\x0c", "\x85", "\u2028", "\u200b", "\ufeff"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u0327", "\u0345", "\u05b0", "\u064b", "\u093c", "\u0f71", "\u20d0",
         "\u3099", "\u1161", "\u11a8", "\u1d16d", "\U0001d165"]
BITS = ["'s", "'S", "'re", "'LL", "'d", "n't", "don't I'VE", "\u017f", "x'\u017f", "1234567", "3.14",
        "\u00b2", "\u0663\u0664", "\u2167", "\u2460", "==", "!=", "->", "();", "/* */", "// ",
        "#include <x.h>", "def f(x):\n    return x", "for (i = 0; i < n; i++)", "<|im_start|>",
        "<|im_end|>", "<|endoftext|>",
        "</tool_call>", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "The", " the", "ING", "\u00e9l\u00e8ve", "na\u00efve",
        "Stra\u00dfe", "\u65e5\u672c\u8a9e",
        "\u4f60\u597d", "\ud55c\uad6d\uc5b4", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439",
        "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e2\u05d1\u05e8\u05d9\u05ea",
        "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22", "\u0391\u03b8\u03ae\u03bd\u03b1"]


def strings(count, seed=1):
    """Strings of many scripts, code, white space, digits, emoji, marks and control characters."""
    rng, out = random.Random(seed), ["", " ", "\n", "a", *SPACES, *MARKS, *BITS]
    code = [Path(importlib.import_module(m).__file__).read_text() for m in MODULES]

    def script():
        lo, hi = rng.choice(RANGES)
        return "".join(chr(rng.randrange(lo, hi)) for _ in range(rng.randint(1, 8)))

    def anything():                                          # any code point but surrogates
        c = rng.randrange(0x110000 - 0x800)
        return chr(c if c < 0xD800 else c + 0x800)
    kinds = [script, script, lambda: rng.choice(SPACES) * rng.randint(1, 4), lambda: rng.choice(BITS),
             lambda: rng.choice(SPACES), lambda: script()[:1] + "".join(rng.sample(MARKS, rng.randint(1, 4))),
             lambda: str(rng.randrange(10 ** rng.randint(1, 9))), anything,
             lambda: chr(rng.randrange(128)) * rng.randint(1, 3)]
    while len(out) < count:
        if rng.random() < 0.2:
            s = rng.choice(code)
            at = rng.randrange(len(s))
            out.append(s[at:at + rng.randint(1, 200)])
        else:
            out.append("".join(rng.choice(kinds)() for _ in range(rng.randint(1, 12))))
    return out[:count]


def gguf_tokenizer(g):
    """A GGUF's byte-level BPE in the tokenizers library, its tokens, their types as binfile's. Special ones are
    not matched before reference_text.add_specials."""
    from tokenizers import AddedToken

    import reference_text
    text, kind = g("tokenizer.ggml.tokens"), g("tokenizer.ggml.token_type")
    pretok, nfc, marks = export.PRETOK[g("tokenizer.ggml.pre")]
    types = [{1: 0, 4: 3, 5: 2}.get(k, 1) for k in kind]
    merges = [tuple(m.split(" ")) for m in g("tokenizer.ggml.merges")]
    tok = reference_text.reference_tokenizer(text, types, merges, "marks" if marks else pretok, nfc)
    tok.add_tokens([AddedToken(s, normalized=False) for s, k in zip(text, types) if k == 3])
    return tok, text, types


def tokens(args):
    import unicodedata

    from tokenizers import Regex, pre_tokenizers

    import reference_text
    g = export.Gguf(args.gguf)
    tok, text, types = gguf_tokenizer(g)
    todo = strings(args.count)
    want = [e.ids for e in tok.encode_batch(todo, add_special_tokens=False)]
    print(f"{len(todo)} strings, {sum(map(len, want))} tokens, "
          f"{len(set(i for w in want for i in w))} different ones", flush=True)

    # The table of classes in the file against the reference's own regular expressions
    t = binfile.read(args.model, tensors=False)[1]
    have = {c: k for first, last, k in t["unicode"] for c in range(first, last + 1)}
    for k, pattern in [(1, r"\p{L}"), (2, r"\p{M}"), (3, r"\p{N}"), (4, r"\s")]:
        split = pre_tokenizers.Split(Regex(pattern), "removed")
        bad = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000
               and (have.get(c) == k) == bool(split.pre_tokenize_str(chr(c)))]
        if bad:
            print(f"note: class {pattern} differs at {len(bad)} code points, the first U+{bad[0]:04X}; the "
                  f"exporter's table is of another Unicode version (pip install unicodedata2)")
    if args.dry:
        return True
    with tempfile.TemporaryDirectory() as tmp:
        lines = Path(tmp, "lines")
        lines.write_text("".join(s.encode().hex() + "\n" for s in todo))
        got = run([probe(), "tokens", args.model], stdin=open(lines)).decode().split("\n")[:-1]
    if len(got) != len(todo):
        sys.exit(f"parity: {len(got)} lines of tokens for {len(todo)} strings")
    bad = 0
    for s, line, w in zip(todo, got, want):
        ids = list(map(int, line.split()))
        if ids != w:
            bad += 1
            if bad <= args.show:
                names = ", ".join(unicodedata.name(ch, hex(ord(ch))) for ch in s[:6])
                print(f"differs: {s!r} ({names})\n"
                      f"   ours {[text[i] for i in ids]}\n   reference {[text[i] for i in w]}")
    print(f"plain text: {len(todo) - bad} of {len(todo)} strings equal")
    checked.add(kind="tokens", reference="tokenizers", form="GGUF", equal=len(todo) - bad, of=len(todo))

    # Whole conversations: the template rendered by Jinja, special tokens matched in the rendering
    reference_text.add_specials(tok, [s for s, k in zip(text, types) if k == 1])

    def name(key):
        i = g(f"tokenizer.ggml.{key}_token_id")
        return "" if i is None else text[i]
    render = chat_template.renderer(g("tokenizer.chat_template"), name("bos"), name("eos"))
    chats = ["Hello!", "What is the capital of France?", "  two\n\nlines  ",
             "caf\u00e9 cafe\u0301 \u4f60\u597d 123",
             "def f(x):\n\treturn x  # 1", "\n", "don't", "\U0001f44d"]
    wrong = 0
    for s in chats:
        w = tok.encode(render([s], True), add_special_tokens=False).ids
        out = run([args.steer, "tokenize", args.model, "--chat", s]).decode()
        ids = list(map(int, out.split("\n")[0].split()))    # the ids, then a line a token
        if ids != w:
            wrong += 1
            print(f"chat differs: {s!r}\n   ours {ids}\n   reference {w}")
    print(f"conversations: {len(chats) - wrong} of {len(chats)} equal")
    return not bad and not wrong


# ---- patching ------------------------------------------------------------------------------------

def patch(args):
    """Integrated gradients of one example: tests/probe scores against PyTorch's autograd."""
    import json

    import torch

    import reference
    import reference_graph

    head = np.fromfile(args.vector, dtype=np.int32, count=13)
    layer, coeff = int(head[10]), float(head[12:13].view(np.float32)[0])
    with tempfile.TemporaryDirectory() as folder:
        prompt, answer, raw = (Path(folder) / name for name in ("prompt", "answer", "raw"))
        prompt.write_text(args.prompt + "\n")
        run = [args.steer, "generate", args.model, "--prompts", prompt, "--vector", args.vector,
               "--max-new", str(args.length), "--jsonl", answer, "--quiet"]
        subprocess.run(run, check=True)
        start = subprocess.run([args.steer, "tokenize", args.model, "--chat", args.prompt, "--quiet"],
                               check=True, capture_output=True, text=True).stdout.split()
        ids = [int(i) for i in start] + json.loads(answer.read_text())["ids"][:-1]
        subprocess.run([probe(), "scores", args.model, args.vector, str(len(start)), raw],
                       input=" ".join(map(str, ids)).encode(), check=True)
        got = torch.from_numpy(np.fromfile(raw))
    torch.set_num_threads(args.threads)
    ref, _ = reference.from_file(args.model, torch.float64)
    g = reference_graph.Graph(ref, layer)
    v = np.fromfile(args.vector, dtype=np.float32, count=g.d, offset=256)
    delta = coeff * torch.from_numpy(v).double()
    base, steered = g.run(ids), g.run(ids, delta)       # the text is steered: it is the destination
    poi = [t for t in range(len(start) - 1, len(ids))
           if base["raw"][t].argmax() != steered["raw"][t].argmax()]
    m = reference_graph.metric_of("logit", poi, base["raw"], steered["raw"])
    change, grads = base["node"] - steered["node"], g.gradients(ids, delta, 10, m)
    total = float(m(base["raw"]) - m(steered["raw"]))
    print(f"{len(ids)} tokens, {len(poi)} positions of interest, {int(got[0])} found; total effect "
          f"{total:.6f}, {float(got[1]):.6f} found")
    size, good = g.S * g.U, int(got[0]) == len(poi)
    for k, form in enumerate(("post", "pre")):
        want = torch.einsum("utd,vtd->vu", change, grads[form])
        mine = got[3 + g.U + g.d + k * size:][:size].view(g.S, g.U)
        causal = torch.tensor([[u < g.senders(v) for u in range(g.U)] for v in range(g.S)])
        a, b = mine[causal], want[causal]
        r = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
        strong = b.abs() > b.abs().median()
        off = float(((a - b).abs() / b.abs())[strong].max())
        good &= r >= 0.9999
        print(f"{('official', 'norm-aware')[k]}: {len(a)} edges, Pearson {r:.8f}, largest relative error above "
              f"the median {off:.2g}")
    return good


def main():
    ap = argparse.ArgumentParser(description="./steer against transformers and tokenizers")
    sub = ap.add_subparsers(dest="what", required=True)
    a = sub.add_parser("logits")
    a.add_argument("model")
    a.add_argument("--texts", type=int, default=20)
    a.add_argument("--length", type=int, default=200)
    a.add_argument("--tolerance", type=float, default=1e-3)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--raw", help="keep the program's logits here")
    a.add_argument("--reuse", action="store_true", help="compare the logits that --raw holds already")
    a.add_argument("--report", metavar="FILE", help="keep the figures there, as JSON")
    b = sub.add_parser("tokens")
    b.add_argument("model")
    b.add_argument("gguf")
    b.add_argument("--count", type=int, default=10000)
    b.add_argument("--show", type=int, default=5, help="differences to print")
    b.add_argument("--dry", action="store_true", help="the reference alone")
    c = sub.add_parser("patch")
    c.add_argument("model")
    c.add_argument("--vector", required=True)
    c.add_argument("--prompt", default="Write a short poem about the sea.")
    c.add_argument("--length", type=int, default=24)
    c.add_argument("--threads", type=int, default=2)
    for p in (a, b, c):
        p.add_argument("--steer", default="./steer")
    args = ap.parse_args()
    if getattr(args, "reuse", False) and not args.raw:
        ap.error("--reuse needs --raw FILE")
    sys.exit(0 if {"logits": logits, "tokens": tokens, "patch": patch}[args.what](args) else 1)


if __name__ == "__main__":
    main()
