"""The model file of steer.c (.bin), read and written with numpy.

One little-endian file: a header of 512 bytes, a directory of fixed records, the tokenizer's
sections, the tensors. Every part begins at a multiple of 64 bytes and follows the one before it
with zero padding only, so that the exact size of the file follows from its header.

Header: magic STEERMDL, version, number of tensors, file size, CRC-32 of what precedes the weights,
CRC-32 of the weights, where they begin, name, configuration, default site, ten sections (offset and
bytes each), SWITCHES, CONFIG_MORE. Directory: records of 40 bytes (kind, type, block, rows, columns, offset, bytes). Sections
and tensors: SECTIONS, GLOBAL and BLOCK below; f32, bf16 or q8 (int8 in groups of 32 with f32 scales).

steer.c accepts nothing else: it looks at the size and the first checksum before it reads any further,
then checks, once, what all later code relies on (ids inside the vocabulary, tables sorted and of valid
code points, the classes of ASCII, special tokens without zero bytes, merges whose result is their
parts, the template's and the grammar's form, finite angles: `check_tokens` and its neighbours).

A vector file, written by steer.c alone: 256 bytes of header (magic STEERVEC, version, CRC-32, size,
width, blocks, operation, site, block, position, coefficient, checksum of the chat template,
fingerprint of the model, method, model name, identity of the model, 1 for directions of several
blocks, 1 for none of the means), then d floats, the vector, or blocks + 1 rows of them, and, unless
there are none, 3 x blocks floats, the means without the behaviour along it.

A store of records, likewise: 16 bytes (STORE and three zeros, version 2 as u64), then records: 24
bytes (magic SREC, number n of doubles, key as u64, CRC-32 of the doubles, CRC-32 of these first 20
bytes), then the n doubles. The last record of a key holds.
"""
import contextlib
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np

MAGIC, VERSION, HEADER, ALIGN = b"STEERMDL", 1, 512, 64
F32, BF16, Q8 = 0, 1, 2                       # tensor types; q8: int8 [rows, cols], then f32 scales
DTYPES = {"f32": F32, "bf16": BF16, "q8": Q8}
SECTIONS = ["token_offsets",                  # u32 [vocab + 1] into token_bytes
            "token_bytes",                    # the bytes that each token stands for
            "token_types",                    # u8 [vocab]: 0 text, 1 special, 2 unused, 3 user-defined
            "byte_tokens",                    # u32 [256]: the token of each single byte, or ~0: none
            "merges",                         # u32 [n, 4]: left, right, rank, result; by (left, right)
            "unicode",                        # u32 [n, 3]: first, last, class 1 L, 2 M, 3 N, 4 space; for
                                              # Qwen3.5, whose words hold marks, M is 1, too
            "template",                       # the strings of TEMPLATE, each closed by a zero byte
            "grammar",                        # lines "o OPENER with {T}", "s STEP": the answers' grammar
            "normal",                         # tables of Unicode NFC (see pack_nfc)
            "wholes"]                         # u32 [n] ids that texts are searched for, by their bytes
TEMPLATE = ["start", "system_pre", "system", "system_post", "user_pre", "user_post",
            "assistant_pre", "assistant_post",
            "answer_pre"]                     # before the answer that is to come
# Tensors in the order of the directory: kind, name, shape, needed when
GLOBAL = [(0, "embed", "Vd", None), (1, "unembed", "Vd", "untied"), (2, "final_norm", "d", None),
          (3, "rope_freq", "r", None), (4, "rope_local", "r", "local")]
BLOCK = [(16, "attn_norm", "d", None), (17, "wq", "qd", None), (18, "wk", "kd", None),
         (19, "wv", "kd", None), (20, "bq", "q", "bias"), (21, "bk", "k", "bias"),
         (22, "bv", "k", "bias"), (23, "wo", "dq", None), (24, "post_attn_norm", "d", "post"),
         (25, "mlp_norm", "d", None), (26, "w_gate", "fd", None), (27, "w_up", "fd", None),
         (28, "w_down", "df", None), (29, "post_mlp_norm", "d", "post"), (30, "q_norm", "h", "qk"),
         (31, "k_norm", "h", "qk")]
CONFIG_INT = ["d", "layers", "heads", "kv_heads", "head_dim", "ff", "vocab", "max_seq",
              "qkv_bias", "post_norms", "gelu", "tied", "window", "window_every"]
CONFIG_FLT = ["norm_eps", "norm_offset", "attn_cap", "final_cap", "embed_scale", "query_scale"]
CONFIG_MORE = ["qk_norm", "local_rope"]       # absent: 0
TOKEN_INT = ["pretok", "nfc", "trim"]           # trim: 1 each turn, 2 answers alone
SWITCHES = ["system_always", "drop_thinking"]  # of the template
# pretok: pre-tokens of bytes (1 GPT-2 with single digits, 2 Qwen2, 3 Llama 3), or SentencePiece's code
# points (4), with a space before each part of a text between special or user-defined tokens (5), each
# that has none (6), each between special tokens (7), the very first if it has none (8)
GPT2, QWEN2, LLAMA3, SENTENCEPIECE, SPACED, LACKING, TEXT_SPACED, FIRST_LACKING = range(1, 9)
TEXT, SPECIAL, UNUSED, USER = 0, 1, 2, 3      # token types
NO_TOKEN = 0xFFFFFFFF                         # in byte_tokens
# What steer.c takes: the least and the greatest of the whole numbers, how many ids eot and refusal
# hold, how many tokens the template may put between a question and its answer
LIMITS = {"d": (1, 1 << 16), "layers": (1, 512), "heads": (1, 1024), "kv_heads": (1, 1024),
          "head_dim": (2, 1024), "ff": (1, 1 << 20), "vocab": (1, 1 << 22), "max_seq": (1, 1 << 24),
          "window": (0, 2**31 - 1), "window_every": (0, 2**31 - 1)}
MAX_IDS, MAX_EOI = 8, 64
ALWAYS = 2**31 - 1                            # window_every: every block has the sliding window
BLOCK_BYTES = 1 << 24                         # of float32 rows that are held at once
LARGEST = (2 - 2**-7) * 2.0**127               # the largest number of bf16


def gpt2_alphabet():
    """GPT-2 writes each byte as a printable character: {byte: character}."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


LETTER = gpt2_alphabet()
BYTE = {letter: byte for byte, letter in LETTER.items()}


class Refused(Exception):
    """One sentence: why there will be no file."""


@contextlib.contextmanager
def replacing(path):
    """A new, empty file under a temporary name beside `path`. It replaces `path` if the block ends
    well, and is removed if it does not."""
    path = Path(os.path.realpath(path))           # a link stays, what it leads to is replaced
    if path.exists() and not path.is_file():
        raise Refused(f"{path} is not a regular file")
    tmp = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(tmp, "xb"):
        pass
    try:
        yield tmp
        if path.exists():
            shutil.copymode(path, tmp)
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def tensor_list(c):
    """[(kind, layer, name, shape)] of a configuration, in file order; names as 'wq.3', 'embed'."""
    dims = {"V": c["vocab"], "d": c["d"], "r": c["head_dim"] // 2, "q": c["heads"] * c["head_dim"],
            "k": c["kv_heads"] * c["head_dim"], "f": c["ff"], "h": c["head_dim"]}
    have = {None: True, "untied": not c["tied"], "bias": c["qkv_bias"], "post": c["post_norms"],
            "qk": c.get("qk_norm"), "local": c.get("local_rope")}
    out = [(k, 0, n, tuple(dims[s] for s in sh)) for k, n, sh, need in GLOBAL if have[need]]
    for b in range(c["layers"]):
        out += [(k, b, f"{n}.{b}", tuple(dims[s] for s in sh)) for k, n, sh, need in BLOCK if have[need]]
    return out


def to_bf16(a):
    """Round float32 to bf16, to nearest, ties to even; returns uint16."""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32)
    out = np.empty(u.shape, np.uint16)
    for v, o in zip(np.array_split(u, 64), np.array_split(out, 64)):      # small temporaries
        o[...] = (v + 0x7FFF + ((v >> 16) & 1)) >> 16
    return out


def from_bf16(u):
    return (u.astype(np.uint32) << 16).view(np.float32)


def encode(a, dtype):
    """The bytes of one tensor. Vectors are always f32."""
    if dtype == F32:
        return np.ascontiguousarray(a, np.float32).tobytes()
    if dtype == BF16:
        return to_bf16(a).tobytes()
    rows, cols = a.shape
    g = np.ascontiguousarray(a, np.float32).reshape(rows, cols // 32, 32)
    scale = np.abs(g).max(-1) / 127
    q = np.rint(g / np.where(scale == 0, 1, scale)[..., None]).astype(np.int8)
    return q.tobytes() + scale.astype(np.float32).tobytes()


def nbytes(shape, dtype):
    n = int(np.prod(shape, dtype=np.int64))
    return n * 4 if dtype == F32 else n * 2 if dtype == BF16 else n + n // 32 * 4


def rope_freq(base, head_dim):
    """Inverse frequencies as transformers computes them, in float32: the exponents, the powers
    (rounded from float64, as a good powf gives them) and their inverses."""
    exponent = np.arange(0, head_dim, 2).astype(np.float32) / np.float32(head_dim)
    return np.float32(1) / np.power(base, exponent.astype(np.float64)).astype(np.float32)


def whole(tensors):
    """A function (name, first row, last) out of one that gives whole tensors by name."""
    return lambda name, first, last: tensors(name)[first:last]


def up(n):
    return (n + ALIGN - 1) // ALIGN * ALIGN


def check(c, t, site):
    """Refuse what steer.c refuses (config_fault, load_tokenizer): see write() for the arguments."""
    def need(good, sentence):
        if not good:
            raise Refused(sentence)

    for k, (least, most) in LIMITS.items():
        need(least <= c[k] <= most, f"{k} is {c[k]}; steer.c takes {least} to {most}")
    need(c["heads"] % c["kv_heads"] == 0, f"{c['heads']} heads can't share {c['kv_heads']} heads of keys")
    need(c["head_dim"] % 2 == 0, f"a head has {c['head_dim']} dimensions, an odd number")
    need(c["window_every"] > 0 or c["window"] == 0, "a sliding window for no block")
    need(c["window"] or not c.get("local_rope"), "rotations of their own for blocks with a window, and no window")
    for k in CONFIG_FLT:
        need(abs(c[k]) <= LARGEST, f"{k} is {c[k]}, not a finite number")
    for k in "norm_eps", "attn_cap", "final_cap":
        need(c[k] >= 0, f"{k} is {c[k]}, a negative number")
    layer, position, coefficient = site
    need(0 <= layer < c["layers"] and abs(coefficient) <= LARGEST and
         (layer == 0 or (-MAX_EOI <= position < 0 and coefficient != 0)), f"{site} is no site of this model")

    vocab = len(t["tokens"])
    need(vocab == len(t["types"]) == c["vocab"], f"{vocab} tokens for a vocabulary of {c['vocab']}")
    need(1 <= len(t["eot"]) <= MAX_IDS and len(t["refusal"]) <= MAX_IDS,
         f"{len(t['eot'])} tokens that end a turn and {len(t['refusal'])} that begin a refusal; "
         f"steer.c takes 1 to {MAX_IDS} and up to {MAX_IDS}")
    need(len(set(t["refusal"])) == len(t["refusal"]), "a token that begins a refusal is named twice")
    for i in t["eot"] + t["refusal"]:
        need(0 <= i < vocab, f"token {i} is outside the vocabulary of {vocab}")
    for i, (s, k) in enumerate(zip(t["tokens"], t["types"])):
        need(0 <= k <= 3, f"token {i} is of type {k}")
        need(k != USER or s, f"token {i} is matched in texts and has no text")
        need(k != 1 or b"\0" not in s, f"token {i} ({s!r}) is special and holds a zero byte")
    need(sum(map(len, t["tokens"])) < 1 << 32, "the tokens have more than 4 GB of text")
    for byte, i in enumerate(t["byte_tokens"]):
        need(i == NO_TOKEN or (i < vocab and t["tokens"][i] == bytes([byte]) and t["types"][i] == 0),
             f"token {i} does not stand for the byte {byte}")
    rank_of = {}
    for rank, (left, right, result) in enumerate(t["merges"]):
        need(max(left, right, result) < vocab, f"merge {rank} is of tokens outside the vocabulary")
        need(t["tokens"][left] + t["tokens"][right] == t["tokens"][result] and t["types"][result] == 0,
             f"merge {rank} of tokens {left} and {right} does not result in token {result}")
        first = rank_of.setdefault((left, right), rank)
        need(first == rank, f"merge {rank}, of tokens {left} and {right}, is there before as merge {first}")
    ranks = t.get("ranks", range(len(t["merges"])))
    need(len(ranks) == len(t["merges"]) < 1 << 32, f"{len(ranks)} ranks for {len(t['merges'])} merges")
    if t["pretok"] >= SENTENCEPIECE:
        need(NO_TOKEN not in t["byte_tokens"], "the vocabulary has no token for some byte")
    before = -1
    for first, last, k in t["unicode"]:
        need(before < first <= last and 1 <= k <= 4, f"the Unicode table is wrong at U+{first:04X}")
        before = last
    ascii_class = {c: k for first, last, k in t["unicode"] for c in range(first, min(last, 127) + 1)}
    for c in range(128):                          # the pre-tokenizers' rules name some of these
        ch = chr(c)
        k = 1 if ch.isalpha() else 3 if ch.isdigit() else 4 if ch in " \t\n\v\f\r" else 0
        need(ascii_class.get(c, 0) == k, f"the Unicode table does not have U+{c:04X} in class {k}")
    for k, s in t["template"].items():
        need("\0" not in s, f"the template's string {k} holds a zero byte")


def write(path, config, tokenizer, tensors, dtype, name, site=(0, 0, 0.0), tick=lambda done, of: None):
    """Write a model file.

    config     dict of CONFIG_INT, CONFIG_FLT and CONFIG_MORE
    tokenizer  dict: pretok, nfc, trim, eot [ids], refusal [ids], tokens [bytes], types [int],
               merges [(left id, right id, result id)] in rank order, or with their ranks [int],
               byte_tokens [256 ids], wholes [ids] of text that is looked up, unicode [(first, last,
               class)], template {name: str}, SWITCHES 0 or 1, grammar str, normal bytes
    tensors    a function (name, first, last) -> float32 array of these rows (of a vector: numbers),
               called in the order of the file; see whole()
    dtype      'f32', 'bf16' or 'q8' for the matrices
    site       (layer, position, coefficient) to report by default; layer 0: none
    tick       is told of bytes written, of how many

    Raises Refused for what steer.c would not open. What is at `path` is overwritten: see replacing().
    """
    check(config, tokenizer, site)
    t, want = tokenizer, DTYPES[dtype]
    offsets = np.cumsum([0] + [len(b) for b in t["tokens"]]).astype(np.uint32)
    ranks = t.get("ranks", range(len(t["merges"])))
    strings = [t["template"].get(k, "") for k in TEMPLATE]
    if t["template"].get("answer_pre", t["template"].get("assistant_pre", "")) == strings[6]:
        strings.pop()                             # it begins as every answer does
    merges = sorted((l, r, rank, res) for rank, (l, r, res) in zip(ranks, t["merges"]))
    wholes = {t["tokens"][i]: i for i in reversed(t.get("wholes", []))}
    wholes |= {s: i for i, (s, k) in enumerate(zip(t["tokens"], t["types"])) if k == USER}
    body = {"token_offsets": offsets.tobytes(), "token_bytes": b"".join(t["tokens"]),
            "token_types": bytes(t["types"]), "byte_tokens": np.array(t["byte_tokens"], np.uint32).tobytes(),
            "merges": np.array(merges, np.uint32).tobytes(),
            "unicode": np.array(t["unicode"], np.uint32).tobytes(),
            "template": b"".join(s.encode() + b"\0" for s in strings),
            "grammar": t.get("grammar", "").encode(), "normal": t.get("normal", b""),
            "wholes": np.array([wholes[s] for s in sorted(wholes)], np.uint32).tobytes()}
    todo = tensor_list(config)
    at = up(HEADER + 40 * len(todo))
    sections = []
    for s in SECTIONS:
        sections.append((at, len(body[s])))
        at = up(at + len(body[s]))
    data_offset, directory = at, b""
    for kind, layer, tname, shape in todo:
        ty = want if len(shape) == 2 else F32
        if ty == Q8 and shape[1] % 32:
            ty = BF16                             # groups of 32 along a row
        n = nbytes(shape, ty)
        directory += struct.pack("<HHIIIQQQ", kind, ty, layer, shape[0],
                                 shape[1] if len(shape) == 2 else 0, at, n, 0)
        at = up(at + n)
    size = at

    def ids(v):
        return list(v) + [0] * (8 - len(v))
    head = MAGIC + struct.pack("<IIQIIQ", VERSION, len(todo), size, 0, 0, data_offset)
    name = name.encode()[:63].decode(errors="ignore")        # not half a character at the end
    head += name.encode().ljust(64, b"\0")
    head += struct.pack("<14I", *(int(config[k]) for k in CONFIG_INT))
    head += struct.pack("<6f", *(config[k] for k in CONFIG_FLT))
    head += struct.pack("<3I", *(int(t[k]) for k in TOKEN_INT))
    head += struct.pack("<2I", len(t["eot"]), len(t["refusal"]))
    head += struct.pack("<16I", *ids(t["eot"]), *ids(t["refusal"]))
    head += struct.pack("<Iif", *site)
    head += b"".join(struct.pack("<QQ", *s) for s in sections)
    head += struct.pack("<2I", *(int(t.get(k, 0)) for k in SWITCHES))
    head += struct.pack("<2I", *(int(config.get(k, 0)) for k in CONFIG_MORE))
    meta = bytearray((head.ljust(HEADER, b"\0") + directory).ljust(sections[0][0], b"\0"))
    for (o, n), s in zip(sections, SECTIONS):
        assert len(meta) == o
        meta += body[s].ljust(up(n), b"\0")
    assert len(meta) == data_offset
    crc = 0
    with open(path, "wb") as f:
        f.write(meta)
        for kind, layer, tname, shape in todo:
            ty = want if len(shape) == 2 else F32
            if ty == Q8 and shape[1] % 32:
                ty = BF16
            step = max(1, BLOCK_BYTES // (4 * shape[-1])) if len(shape) == 2 else shape[0]
            scales = b""                          # of q8: behind all numbers
            for first in range(0, shape[0], step):
                last = min(first + step, shape[0])
                a = np.asarray(tensors(tname, first, last), np.float32)
                assert a.shape == (last - first, *shape[1:]), (tname, a.shape, shape)
                if not max(a.max(), -a.min()) <= LARGEST:    # nor is it of NaN
                    raise Refused(f"tensor {getattr(tensors, 'source', {}).get(tname, tname)} holds values "
                                  f"that are not finite numbers of at most {LARGEST:.3g}")
                b = encode(a, ty)
                numbers = a.size if ty == Q8 else len(b)
                scales += b[numbers:]
                crc = zlib.crc32(b[:numbers], crc)
                f.write(b[:numbers])
                tick(f.tell(), size)
            end = scales.ljust(up(nbytes(shape, ty)) - nbytes(shape, ty) + len(scales), b"\0")
            crc = zlib.crc32(end, crc)
            f.write(end)
        struct.pack_into("<I", meta, 28, crc)
        struct.pack_into("<I", meta, 24, zlib.crc32(meta))
        f.seek(0)
        f.write(meta)
        f.flush()
        os.fsync(f.fileno())                      # before it takes the place of another


def read(path, tensors=True):
    """(config, tokenizer, {name: float32 array}, name, site): the inverse of write()."""
    raw = open(path, "rb").read()
    assert raw[:8] == MAGIC
    version, n_tensors, size, meta_crc, data_crc, data = struct.unpack_from("<IIQIIQ", raw, 8)
    assert version == VERSION and size == len(raw)
    meta = bytearray(raw[:data])
    struct.pack_into("<I", meta, 24, 0)
    assert zlib.crc32(meta) == meta_crc and zlib.crc32(memoryview(raw)[data:]) == data_crc
    config = dict(zip(CONFIG_INT, struct.unpack_from("<14I", raw, 104)))
    config |= dict(zip(CONFIG_FLT, struct.unpack_from("<6f", raw, 160)))
    t = dict(zip(TOKEN_INT, struct.unpack_from("<3I", raw, 184)))
    n_eot, n_ref = struct.unpack_from("<2I", raw, 196)
    ids = struct.unpack_from("<16I", raw, 204)
    t["eot"], t["refusal"] = list(ids[:n_eot]), list(ids[8:8 + n_ref])
    site = struct.unpack_from("<Iif", raw, 268)
    sec = {}
    for i, s in enumerate(SECTIONS):
        o, n = struct.unpack_from("<QQ", raw, 280 + 16 * i)
        sec[s] = raw[o:o + n]
    off = np.frombuffer(sec["token_offsets"], np.uint32)
    t["tokens"] = [sec["token_bytes"][a:b] for a, b in zip(off[:-1], off[1:])]
    t["types"] = list(sec["token_types"])
    t["byte_tokens"] = np.frombuffer(sec["byte_tokens"], np.uint32).tolist()
    m = np.frombuffer(sec["merges"], np.uint32).reshape(-1, 4)
    m = m[np.argsort(m[:, 2], kind="stable")].tolist()
    t["merges"], t["ranks"] = [(l, r, res) for l, r, _, res in m], [rank for _, _, rank, _ in m]
    t["wholes"] = np.frombuffer(sec["wholes"], np.uint32).tolist()
    t |= dict(zip(SWITCHES, struct.unpack_from("<2I", raw, 280 + 16 * len(SECTIONS))))
    config |= dict(zip(CONFIG_MORE, struct.unpack_from("<2I", raw, 288 + 16 * len(SECTIONS))))
    t["unicode"] = [tuple(map(int, r)) for r in np.frombuffer(sec["unicode"], np.uint32).reshape(-1, 3)]
    strings = [s.decode() for s in sec["template"].split(b"\0")[:-1]]
    t["template"] = dict(zip(TEMPLATE, strings if len(strings) > 8 else [*strings, strings[6]]))
    t["grammar"], t["normal"] = sec["grammar"].decode(), sec["normal"]
    out = {}
    for i, (kind, layer, tname, shape) in enumerate(tensor_list(config) if tensors else []):
        k, ty, lay, rows, cols, o, n, _ = struct.unpack_from("<HHIIIQQQ", raw, HEADER + 40 * i)
        assert (k, lay, rows) == (kind, layer, shape[0])
        if ty == F32:
            a = np.frombuffer(raw, np.float32, n // 4, o)
        elif ty == BF16:
            a = from_bf16(np.frombuffer(raw, np.uint16, n // 2, o))
        else:
            m = rows * cols
            a = np.frombuffer(raw, np.int8, m, o).reshape(rows, cols // 32, 32).astype(np.float32)
            a = a * np.frombuffer(raw, np.float32, m // 32, o + m).reshape(rows, cols // 32, 1)
        out[tname] = a.reshape(shape)
    return config, t, out, raw[40:104].rstrip(b"\0").decode(), site


def unicode_classes(marks=False):
    """[(first, last, class)] over all code points: 1 letter, 2 mark, 3 number, 4 white space. marks: they
    are taken for letters, which makes Qwen2's rule Qwen3.5's."""
    try:                                          # Unicode 16, as the tokenizers library's \p{L}
        import unicodedata2 as unicodedata
    except ImportError:                           # Python's own, older before 3.14: rare scripts
        import unicodedata
    space = set([0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
                + list(range(9, 14)) + list(range(0x2000, 0x200B)))      # property White_Space
    out = []
    for c in range(0x110000):
        k = {"L": 1, "M": 1 if marks else 2, "N": 3}.get(unicodedata.category(chr(c))[0], 0)
        k = 4 if c in space else k
        if k and out and out[-1][2] == k and out[-1][1] == c - 1:
            out[-1] = (out[-1][0], c, k)
        elif k:
            out.append((c, c, k))
    return out


# Marks and composed characters younger than Unicode 9. The tokenizers library's NFC is that of Unicode
# 9 and leaves them alone, so they are left out here, too: the table is the same under any Python.
YOUNG = """7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ACE 1DF6-1DFA A82C 105C9-105E4 10D24-10D6D
10EAB-10EFF 10F46-10F85 11070 1133B 11383-113D0 1145E 11839-11943 119E0-11A99 11D42-11D97 11F41-11F42
16121-1612F 16D68-16D6A 16FF0-16FF1 1E08F 1E130-1E136 1E2AE-1E2EF 1E4EC-1E5EF"""


def pack_nfc():
    """The section 'normal': what Unicode's canonical composition (NFC) needs beside Hangul's rules.

    u32 n_ccc, n_decomp, n_comp, 0; n_ccc x (first, last, combining class), ascending;
    n_decomp x (code, a, b), by code: canonical decompositions, one level, b = 0 if a is all;
    n_comp x (a, b, code), by (a, b): what a and b compose to, exclusions left out.
    """
    from unicodedata import combining, decomposition, normalize
    young = set()
    for r in YOUNG.split():
        first, _, last = r.partition("-")
        young.update(range(int(first, 16), int(last or first, 16) + 1))
    ccc, decomp, comp = [], [], []
    for c in sorted(set(range(0x110000)) - young):
        k = combining(chr(c))
        if k and ccc and ccc[-1][1:] == (c - 1, k):
            ccc[-1] = (ccc[-1][0], c, k)
        elif k:
            ccc.append((c, c, k))
        d = decomposition(chr(c))
        if d and d[0] != "<":                     # <...> marks compatibility decompositions
            a, b = ([int(x, 16) for x in d.split()] + [0])[:2]
            decomp.append((c, a, b))
            if b and normalize("NFC", chr(c)) == chr(c):
                comp.append((a, b, c))
    comp.sort()
    rows = np.array(ccc + decomp + comp, np.uint32)
    return struct.pack("<4I", len(ccc), len(decomp), len(comp), 0) + rows.tobytes()
