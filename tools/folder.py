"""A Hugging Face folder as export.py reads it: config.json, safetensors, a tokenizer, a chat template.

class Folder has what export.py's class Gguf has: title(), config(), tensors_of(config),
vocabulary(rows), chat_template(). Every value is taken for hostile until it is checked; what steer.c can't express is
refused by name. Needs numpy.
"""
import json
import os
import re
import struct
from pathlib import Path

import numpy as np

import binfile
from binfile import Refused

MOST = 1 << 30                                # bytes of one JSON file or tokenizer
# Families, by model_type: Gemma's norms multiply by 1 + w, its embeddings by sqrt(d)
GEMMA = {"gemma", "gemma2", "gemma3_text"}
FAMILIES = {"llama", "mistral", "qwen2", "qwen3"} | GEMMA
# What transformers takes where Gemma 3's config.json is silent
GEMMA3 = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
          "max_position_embeddings": 131072, "sliding_window": 4096, "rope_theta": 1e6}
# Keys of config.json that say nothing about the network, or that config() reads
SILENT = """_name_or_path architectures attention_dropout auto_map bos_token_id cache_implementation
chunk_size_feed_forward dtype eos_token_id hidden_dropout id2label initializer_range is_llama_config
label2id max_window_layers model_type pad_token_id pretraining_tp problem_type return_dict torch_dtype
transformers.js_config transformers_version unsloth_fixed unsloth_version use_cache""".split()
READ = """_sliding_window_pattern attn_logit_softcapping attention_bias final_logit_softcapping head_dim hidden_act
hidden_activation hidden_size intermediate_size layer_types max_position_embeddings
num_attention_heads num_hidden_layers num_key_value_heads query_pre_attn_scalar rms_norm_eps
rope_local_base_freq rope_parameters rope_scaling rope_theta sliding_window sliding_window_pattern tie_word_embeddings
use_sliding_window vocab_size""".split()
NAMES = {"attn_norm": "input_layernorm.weight", "wq": "self_attn.q_proj.weight",
         "wk": "self_attn.k_proj.weight", "wv": "self_attn.v_proj.weight",
         "bq": "self_attn.q_proj.bias", "bk": "self_attn.k_proj.bias", "bv": "self_attn.v_proj.bias",
         "wo": "self_attn.o_proj.weight", "mlp_norm": "post_attention_layernorm.weight",
         "w_gate": "mlp.gate_proj.weight", "w_up": "mlp.up_proj.weight", "w_down": "mlp.down_proj.weight",
         "q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight"}
NAMES_POST = NAMES | {"post_attn_norm": "post_attention_layernorm.weight",      # of Gemma 2 and 3
                      "mlp_norm": "pre_feedforward_layernorm.weight",
                      "post_mlp_norm": "post_feedforward_layernorm.weight"}
GLOBAL_NAMES = {"embed": "embed_tokens.weight", "final_norm": "norm.weight", "unembed": "lm_head.weight"}
TYPES = {"F32": 4, "F16": 2, "BF16": 2}       # bytes of a number
# The pre-tokenizers that steer.c has, by their regular expression: (pretok, whether marks are letters)
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPLITS = {QWEN2: (binfile.QWEN2, 0), QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"): (binfile.LLAMA3, 0),
          QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}"): (binfile.QWEN2, 1)}
LOW_LINE = "\u2581"                            # a space, as SentencePiece writes it
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": LOW_LINE}
PREPEND = {"type": "Prepend", "prepend": LOW_LINE}
# Metaspace's ways of putting a space before a text
METASPACE = {"never": binfile.SENTENCEPIECE, "always": binfile.LACKING, "first": binfile.FIRST_LACKING}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)    # SentencePiece's types of pieces


def piece_bytes(i, s, spm):
    """The bytes that a token stands for."""
    if spm:
        byte = re.fullmatch("<0x([0-9A-F]{2})>", s)
        return bytes([int(byte[1], 16)]) if byte else s.replace(LOW_LINE, " ").encode()
    try:
        return bytes(map(binfile.BYTE.__getitem__, s))
    except KeyError:
        raise Refused(f"token {i} ({s!r}) is not written in GPT-2's alphabet of bytes")


def byte_pieces(index):
    """SentencePiece's tokens of the 256 bytes. Gemma 2 has a tab as text in the byte's place."""
    there = [index.get(f"<0x{b:02X}>") for b in range(256)]
    return [index.get(chr(b), binfile.NO_TOKEN) if i is None and b < 128 else binfile.NO_TOKEN if i is None else i
            for b, i in enumerate(there)]


def sentencepiece(pieces, kinds, scores, pretok):
    """The tables of SentencePiece's pieces for binfile.write. Unused ids stand for nothing."""
    ours = {NORMAL: binfile.TEXT, USER_DEFINED: binfile.USER, UNUSED: binfile.UNUSED, BYTE: binfile.TEXT}
    tokens, index = [], {}
    for i, (s, k) in enumerate(zip(pieces, kinds)):
        if k in (NORMAL, BYTE):
            index[s] = i
        tokens.append(piece_bytes(i, s, True) if k in (NORMAL, BYTE) else b"" if k == UNUSED else
                      (s.replace(LOW_LINE, " ") if k == USER_DEFINED else s).encode())
    merges, ranks = merges_of_scores(index, kinds, scores)
    return dict(pretok=pretok, nfc=0, tokens=tokens, types=[ours.get(k, binfile.SPECIAL) for k in kinds],
                merges=merges, ranks=ranks, byte_tokens=byte_pieces(index),
                wholes=[i for s, i in index.items() if len(s) == 1])


def merges_of_scores(index, kinds, scores):
    """SentencePiece merges two neighbours that make up a piece, those of the highest score first: the
    merges, and for each a rank, which all merges to one score share."""
    parts = {s: i for s, i in index.items() if kinds[i] == NORMAL}
    merges = [(-scores[i], parts[s[:k]], parts[s[k:]], i) for s, i in parts.items() for k in range(1, len(s))
              if s[:k] in parts and s[k:] in parts]
    merges.sort()
    if merges and merges[0][0] == merges[-1][0]:
        raise Refused("all scores of the tokenizer's pieces are the same")
    rank = {score: r for r, score in enumerate(dict.fromkeys(m[0] for m in merges))}
    return [m[1:] for m in merges], [rank[m[0]] for m in merges]


def fields(raw):
    """[(number, value)] of a protobuf message: whole numbers, or the bytes of the other types."""
    at, out = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (raw[at] & 127) << shift
            shift += 7
            at += 1
            if raw[at - 1] < 128:
                return value
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
    while at < len(raw):
        key = varint()
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7)
        if kind == 0:
            out.append((key >> 3, varint()))
            continue
        if kind == 2:
            size = varint()
        if size is None or at + size > len(raw):
            raise ValueError("it ends before what it lists" if size else f"a field of type {kind}")
        out.append((key >> 3, raw[at:at + size]))
        at += size
    return out


def is_text(s):
    """Whether it can be written as UTF-8: JSON can hold half a surrogate pair."""
    return type(s) is str and not re.search("[\ud800-\udfff]", s)


def load_json(path):
    if path.stat().st_size > MOST:
        raise Refused(f"{path} has more than {MOST >> 20} MB")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise Refused(f"{path} is not JSON ({e})")
    if type(value) is not dict:
        raise Refused(f"{path} is not a JSON object")
    return value


class Safetensors:
    """One file: a length of eight bytes, that much JSON, the tensors. Rows are read when wanted."""

    def __init__(self, path):
        self.path, self.file = path, open(path, "rb")
        size = os.fstat(self.file.fileno()).st_size
        head = self.file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= min(size - 8, MOST):
            raise Refused(f"{path} is truncated or not a safetensors file")
        try:
            listed = json.loads(self.file.read(length))
            listed.pop("__metadata__", None)
            self.tensors = {}
            for name, t in listed.items():
                kind, shape, (begin, end) = t["dtype"], tuple(t["shape"]), t["data_offsets"]
                numbers = 1
                for n in shape:
                    numbers *= n if type(n) is int and n >= 0 else -1
                fits = type(begin) is type(end) is int and 0 <= begin <= end <= size - 8 - length
                if not fits or (kind in TYPES and end - begin != numbers * TYPES[kind]):
                    raise ValueError(f"{name} does not fit it")
                self.tensors[name] = kind, shape, 8 + length + begin
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise Refused(f"{path} is truncated or not a safetensors file ({e})")

    def rows(self, name, first, last):
        """Rows first .. last - 1 of a matrix, or numbers of a vector, in float32."""
        kind, shape, at = self.tensors[name]
        width = shape[1] if len(shape) == 2 else 1
        bytes_each = TYPES[kind] * width
        raw = os.pread(self.file.fileno(), (last - first) * bytes_each, at + first * bytes_each)
        if len(raw) != (last - first) * bytes_each:
            raise Refused(f"{self.path} became shorter while it was read")
        if kind == "BF16":
            a = binfile.from_bf16(np.frombuffer(raw, np.uint16))
        else:
            a = np.frombuffer(raw, "<f4" if kind == "F32" else "<f2").astype(np.float32)
        return a.reshape(-1, *shape[1:])


class Folder:
    def __init__(self, path):
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise Refused(f"{path} is neither a GGUF file nor a folder with a config.json")
        whole = load_json(self.path / "config.json")
        inner = whole.get("text_config")
        self.facts = whole
        if type(inner) is dict:                   # images are left out
            kept = "eos_token_id", "architectures", "quantization_config"
            self.facts = {k: v for k, v in whole.items() if k in kept} | inner
        self.arch = self.facts.get("model_type")
        if self.arch == "gemma3_text":
            self.facts = GEMMA3 | self.facts
        for name in "tokenizer_config", "generation_config":
            path = self.path / f"{name}.json"
            setattr(self, name, load_json(path) if path.is_file() else {})

    def title(self):
        name = self.facts.get("_name_or_path")
        return Path(name).name if type(name) is str and name else self.path.resolve().name

    # ---- config.json

    def fact(self, key, kinds, default=None):
        value = self.facts.get(key, default)
        if value is None:
            value = default
        if type(value) not in kinds:
            raise Refused(f"config.json has {key} = {repr(value)[:60]}" if value is not None else
                          f"config.json lacks {key}")
        return value

    def whole(self, name, key, default=None):
        least, most = binfile.LIMITS[name]
        value = self.fact(key, (int,), default)
        if not least <= value <= most:
            raise Refused(f"config.json has {key} = {value}, not a whole number from {least} to {most}")
        return value

    def number(self, key, default=None):
        value = self.fact(key, (int, float), default)
        if not 0 <= value <= binfile.LARGEST:
            raise Refused(f"config.json has {key} = {value}, not a finite number of at least 0")
        return float(value)

    def only(self, key, *values):
        """What steer.c can't do otherwise."""
        if self.facts.get(key) not in (None, *values):
            raise Refused(f"config.json has {key} = {repr(self.facts[key])[:60]}, which steer.c does not know")

    def window(self, layers):
        """(window, window_every): block b sees a window unless b % every == every - 1."""
        family, facts = self.arch, self.facts
        size = facts.get("sliding_window")
        every = {"mistral": binfile.ALWAYS, "gemma2": 2, "gemma3_text": None}.get(family, 0)
        if family == "gemma3_text":               # transformers writes either
            every = facts.get("sliding_window_pattern", facts.get("_sliding_window_pattern", 6))
        if type(every) is not int or every < 0:
            raise Refused(f"config.json has sliding_window_pattern = {repr(every)[:60]}")
        if family in ("qwen2", "qwen3") and facts.get("use_sliding_window"):
            kinds = ["full_attention" if b < self.fact("max_window_layers", (int,), 28) else "sliding_attention"
                     for b in range(layers)]
        else:
            kinds = ["full_attention" if not every or b % every == every - 1 else "sliding_attention"
                     for b in range(layers)]
        if family in ("gemma2", "gemma3_text", "qwen2", "qwen3") and facts.get("layer_types") is not None:
            kinds = self.fact("layer_types", (list,))
        if family == "gemma2":
            size = self.whole("window", "sliding_window", 4096)
        full = [k == "full_attention" for k in kinds]
        if len(kinds) != layers or not all(k in ("full_attention", "sliding_attention") for k in kinds):
            raise Refused(f"config.json has layer_types = {repr(kinds)[:60]}, not a kind of attention a block")
        if all(full) or size is None:
            return 0, 0
        every = full.index(True) + 1 if any(full) else binfile.ALWAYS
        if full != [b % every == every - 1 for b in range(layers)]:
            raise Refused("config.json has sliding windows in blocks that steer.c can't name (it knows all, "
                          "and all but every n-th)")
        size = self.whole("window", "sliding_window")
        if not size:
            raise Refused("config.json has sliding_window = 0")
        return size, every

    def config(self):
        facts, family = self.facts, self.arch
        if type(family) is not str or family not in FAMILIES:
            raise Refused(f"config.json has model_type = {repr(family)[:60]}, which is not supported "
                          f"({', '.join(sorted(FAMILIES))} are)")
        if facts.get("quantization_config"):
            raise Refused("the folder's weights are quantised (quantization_config); only f32, f16 and bf16 "
                          "are read")
        for key, value in facts.items():
            if key not in SILENT and key not in READ and value:
                raise Refused(f"config.json has {key} = {repr(value)[:60]}, which steer.c does not know")
        gemma = family in GEMMA
        self.only("attention_bias", False)
        self.only("hidden_activation", *["gelu_pytorch_tanh"] * gemma)
        self.only("hidden_act", *(["gelu", "gelu_pytorch_tanh"] if gemma else ["silu"]))
        d, layers = self.whole("d", "hidden_size"), self.whole("layers", "num_hidden_layers")
        heads = self.whole("heads", "num_attention_heads")
        kv_heads = self.whole("kv_heads", "num_key_value_heads", heads)
        if heads % kv_heads:
            raise Refused(f"{heads} heads can't share {kv_heads} heads of keys and values "
                          "(num_key_value_heads of config.json)")
        head_dim = self.whole("head_dim", "head_dim", 256 if gemma else 128 if family == "qwen3" else d // heads)
        window, every = self.window(layers)
        caps, gemma3 = family in ("gemma2", "gemma3_text"), family == "gemma3_text"
        scalar = self.number("query_pre_attn_scalar", 256) if caps else head_dim
        if scalar == 0:
            raise Refused("config.json has query_pre_attn_scalar = 0")

        def cap(key, default):                    # null: none
            return self.number(key) if facts.get(key) is not None else default if key not in facts else 0.0
        return dict(
            d=d, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
            ff=self.whole("ff", "intermediate_size"), vocab=self.whole("vocab", "vocab_size"),
            max_seq=self.whole("max_seq", "max_position_embeddings"), qkv_bias=int(family == "qwen2"),
            post_norms=int(caps), gelu=int(gemma), qk_norm=int(gemma3 or family == "qwen3"),
            local_rope=int(gemma3 and window > 0),
            tied=int(self.fact("tie_word_embeddings", (bool,), gemma)), window=window, window_every=every,
            norm_eps=self.number("rms_norm_eps", 1e-6), norm_offset=float(gemma),
            attn_cap=cap("attn_logit_softcapping", 0.0 if gemma3 else 50.0) if caps else 0.0,
            final_cap=cap("final_logit_softcapping", 0.0 if gemma3 else 30.0) if caps else 0.0,
            embed_scale=d ** 0.5 if gemma else 1.0, query_scale=scalar ** -0.5)

    def rope(self, c, kind="full_attention"):
        """Inverse frequencies as transformers computes them, in float32."""
        facts = self.facts
        p = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
        if type(p) is not dict:
            raise Refused(f"config.json has rope parameters {repr(p)[:60]}")
        if {"full_attention", "sliding_attention"} & p.keys():
            p = p.get(kind)
            if type(p) is not dict:
                raise Refused(f"config.json has no rope parameters of {kind}")
        elif kind == "sliding_attention":         # as transformers 4 wrote it
            p = {"rope_theta": facts.get("rope_local_base_freq", 10000.0)}
        p = {"rope_theta": facts.get("rope_theta", 10000.0), **p}
        how = p.get("rope_type", p.get("type", "default"))

        def number(key):
            value = p.get(key)
            if type(value) not in (int, float) or not 0 < value <= binfile.LARGEST or np.float32(value) == 0:
                raise Refused(f"config.json has the rope parameter {key} = {repr(value)[:60]}, not a finite "
                              "number above 0")
            return float(value)
        if how not in ("default", "linear", "llama3"):
            raise Refused(f"rope scaling of type {repr(how)[:60]} is not supported (linear and llama3 are)")
        if p.get("partial_rotary_factor") not in (None, 1.0):
            raise Refused("config.json has a partial_rotary_factor, which steer.c does not know")
        freq = binfile.rope_freq(number("rope_theta"), c["head_dim"])
        if how == "linear":
            freq = freq / np.float32(number("factor"))
        if how == "llama3":
            factor, low, high = number("factor"), number("low_freq_factor"), number("high_freq_factor")
            old = number("original_max_position_embeddings")
            if high <= low:
                raise Refused("config.json has rope parameters whose high_freq_factor is not above the low one")
            length = np.float32(2 * np.pi) / freq
            smooth = (np.float32(old) / length - np.float32(low)) / np.float32(high - low)
            between = (1 - smooth) * freq / np.float32(factor) + smooth * freq
            freq = np.where(length > np.float32(old / low), freq / np.float32(factor),
                            np.where(length < np.float32(old / high), freq, between)).astype(np.float32)
        if not np.isfinite(freq).all():
            raise Refused("the rotary embedding's frequencies are not finite numbers")
        return freq

    # ---- safetensors

    def files(self):
        index = self.path / "model.safetensors.index.json"
        if not index.is_file():
            there = sorted(self.path.glob("*.safetensors"))
            if not there:
                raise Refused(f"{self.path} has no safetensors"
                              + ("; its pytorch_model.bin is not read" if list(self.path.glob("*.bin")) else ""))
            return there
        parts = load_json(index).get("weight_map")
        if type(parts) is not dict or not all(type(p) is str for p in parts.values()):
            raise Refused(f"{index} has no weight_map of names")
        names = sorted({*parts.values()})
        for name in names:
            if name != Path(name).name or not (self.path / name).is_file():
                raise Refused(f"{index} names {name!r}, which is not in the folder")
        return [self.path / name for name in names]

    def tensors_of(self, c):
        """A function (our name, first row, last) -> float32 array; every tensor is checked first."""
        where = {}
        for path in self.files():
            part = Safetensors(path)
            for name in part.tensors:
                if name in where:
                    raise Refused(f"tensor {name} is in two files")
                where[name] = part
        stem = next((s for s in ("model.", "model.language_model.", "language_model.model.", "")
                     if f"{s}embed_tokens.weight" in where), None)
        if stem is None:
            raise Refused("the folder lacks the tensor model.embed_tokens.weight")
        head = "language_model.lm_head.weight" if stem == "language_model.model." else "lm_head.weight"
        names, source = NAMES_POST if c["post_norms"] else NAMES, {}
        for _, layer, name, shape in binfile.tensor_list(c):
            kind = name.split(".")[0]
            if kind.startswith("rope_"):
                continue
            there = GLOBAL_NAMES.get(kind)
            there = head if kind == "unembed" else stem + (there or f"layers.{layer}.{names[kind]}")
            if there not in where:
                raise Refused(f"the folder lacks the tensor {there}")
            kind, got, _ = where[there].tensors[there]
            if got != shape:
                raise Refused(f"tensor {there} has shape {list(got)}, not {list(shape)}")
            if kind not in TYPES:
                raise Refused(f"tensor {there} has type {kind}; f32, f16 and bf16 are read")
            source[name] = there
        # A tied lm_head may be written out, too; older files hold the frequencies; images are left out
        known = re.compile(r"rotary_emb\.inv_freq$|(^|\.)(vision_tower|multi_modal_projector|vision_model)\.")
        for name in sorted(set(where) - set(source.values()) - ({head} if c["tied"] else set())):
            if not known.search(name):
                raise Refused(f"the folder has the tensor {name}, which steer.c does not know")
        ropes = {"rope_freq": self.rope(c)}
        if c["local_rope"]:
            ropes["rope_local"] = self.rope(c, "sliding_attention")

        def tensor(name, first, last):
            if name in ropes:
                return ropes[name][first:last]
            return where[source[name]].rows(source[name], first, last)
        tensor.source = source
        return tensor

    # ---- the tokenizer

    def vocabulary(self, rows):
        """See Gguf.vocabulary."""
        path, model = self.path / "tokenizer.json", self.path / "tokenizer.model"
        if not path.is_file():
            if not model.is_file():
                raise Refused(f"{self.path} has no tokenizer.json and no tokenizer.model")
            if model.stat().st_size > MOST:
                raise Refused(f"{model} has more than {MOST >> 20} MB")
            try:
                return self.from_sentencepiece(model.read_bytes(), rows)
            except (KeyError, TypeError, ValueError, IndexError, struct.error) as e:
                raise Refused(f"{model} is truncated or not SentencePiece's ({type(e).__name__}: {e})")
        t = load_json(path)
        try:
            return self.from_tokenizers(t, rows)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as e:
            raise Refused(f"{path} is not as the tokenizers library writes it ({type(e).__name__}: {e})")

    def from_tokenizers(self, t, rows):
        model = t["model"]
        if model.get("type", "BPE") != "BPE":
            raise Refused(f"tokenizer.json is of type {model['type']!r}; BPE is supported")
        for key in "continuing_subword_prefix", "end_of_word_suffix", "dropout":
            if model.get(key):
                raise Refused(f"tokenizer.json has {key} = {model[key]!r}, which steer.c does not know")
        rule, nfc, marks = self.rule(t)
        spm = rule >= binfile.SENTENCEPIECE
        if spm and not model.get("byte_fallback"):
            raise Refused("tokenizer.json has no byte_fallback, without which steer.c knows no SentencePiece")
        tokens, types, index = [b""] * rows, [binfile.UNUSED] * rows, {}

        def put(i, s, kind):
            if type(i) is not int or i < 0:
                raise Refused(f"tokenizer.json gives {s!r} the id {i!r}")
            if i < rows:
                tokens[i], types[i] = s, kind
            elif kind != binfile.SPECIAL:         # Gemma 3's text models lack the row of an image's token
                raise Refused(f"tokenizer.json has token {i}, the embedding {rows} rows")
        added = {a["content"]: a for a in t.get("added_tokens") or []}
        for s, i in model["vocab"].items():
            if s in added:
                continue
            put(i, piece_bytes(i, s, spm), binfile.TEXT)
            index[s] = i
        for s, a in added.items():
            special = bool(a.get("special"))
            strips = a.get("lstrip") or a.get("rstrip") or a.get("single_word")
            strips = strips or (a.get("normalized") and (nfc or rule > binfile.SENTENCEPIECE))
            if strips and not special:
                raise Refused(f"tokenizer.json matches {s!r} not as it stands, which steer.c does not know")
            put(a["id"], s.replace(LOW_LINE, " ").encode() if spm and not special else s.encode(),
                binfile.SPECIAL if special else binfile.USER)
        merges = []
        for rank, m in enumerate(model["merges"]):
            left, right = m.split(" ") if type(m) is str else m
            ids = [index.get(s) for s in (left, right, left + right)]
            if None not in ids:
                merges.append(tuple(ids))
            elif not spm or any(i is None and s not in added for i, s in zip(ids, (left, right, left + right))):
                raise Refused(f"merge {rank} ({m!r}) names a token that the vocabulary lacks")
        if spm:
            byte_tokens = byte_pieces(index)
        else:
            byte_tokens = [index.get(binfile.LETTER[b], binfile.NO_TOKEN) for b in range(256)]
        wholes = [i for s, i in index.items() if len(s) == 1] if spm else []
        if model.get("ignore_merges"):
            wholes = list(index.values())
        names = {s: a["id"] for s, a in added.items() if a["id"] < rows}
        bos = self.token("bos_token")
        start = self.tokenizer_config.get("add_bos_token", bos in json.dumps(t.get("post_processor")) if bos else 0)
        return dict(pretok=rule, nfc=nfc, marks=marks, tokens=tokens, types=types, merges=merges,
                    byte_tokens=byte_tokens, wholes=wholes, eot=self.ends(names, rows), bos=bos or "",
                    eos=self.token("eos_token") or "", add_bos=bool(start))

    def token(self, key):
        """A special token's name in tokenizer_config.json, or None."""
        value = self.tokenizer_config.get(key)
        value = value.get("content") if type(value) is dict else value
        if type(value) is str and not is_text(value):
            raise Refused(f"tokenizer_config.json has {key} = {value!r}, which is half a surrogate pair")
        return value if type(value) is str else None

    def ends(self, names, rows):
        """Ids that end a turn. names: of special tokens, {name: id}."""
        eot = []
        for source in self.generation_config, self.facts:
            ids = source.get("eos_token_id")
            eot += ids if type(ids) is list else [ids]
        eot = [i for i in [*eot, names.get(self.token("eos_token"))] if i is not None]
        for i in eot:
            if type(i) is not int or not 0 <= i < rows:
                raise Refused(f"eos_token_id is {i!r}, which is not in the vocabulary of {rows}")
        return eot

    def added(self):
        """[(id, text, whether it is special, what else is said)] of what transformers adds to tokenizer.model."""
        listed, path = self.tokenizer_config.get("added_tokens_decoder") or {}, self.path / "added_tokens.json"
        if type(listed) is not dict:
            raise Refused(f"tokenizer_config.json has added_tokens_decoder = {repr(listed)[:60]}")
        named = load_json(path) if path.is_file() else {}
        listed = {str(i): {"content": s, "special": True} for s, i in named.items()} | listed
        for i, a in listed.items():
            text = a.get("content") if type(a) is dict else None
            if not re.fullmatch("[0-9]{1,9}", i) or not is_text(text):
                raise Refused(f"the folder adds a token {repr(text)[:60]} of id {i[:60]!r} to tokenizer.model")
        return [(int(i), a["content"], bool(a.get("special")), a) for i, a in sorted(
            listed.items(), key=lambda entry: int(entry[0]))]

    def from_sentencepiece(self, raw, rows):
        """A tokenizer.model: pieces, and how it was trained and normalises, as far as that matters."""
        model = fields(raw)
        pieces, kinds, scores = [], [], []
        for number, piece in model:
            if number == 1:
                piece = dict(fields(piece))
                pieces.append(str(piece[1], "utf-8"))
                scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                kinds.append(piece.get(3, NORMAL))
        trainer, normalizer = (dict(fields(b"".join(part for number, part in model if number == n))) for n in (2, 3))
        if trainer.get(3, 1) != 2:
            raise Refused("tokenizer.model is not BPE, the only kind of SentencePiece that steer.c knows")
        if not trainer.get(35):
            raise Refused("tokenizer.model has no byte_fallback, without which steer.c knows no SentencePiece")
        if trainer.get(24):
            raise Refused("tokenizer.model has spaces behind words, which steer.c does not know")
        if normalizer.get(2) or normalizer.get(4, 1) or not normalizer.get(5, 1):
            raise Refused("tokenizer.model normalises texts otherwise than by its spaces, which steer.c does not know")
        pretok = binfile.TEXT_SPACED if normalizer.get(3, 1) else binfile.SENTENCEPIECE
        if any(not 1 <= k <= 6 for k in kinds) or any(x != x for x in scores):
            raise Refused("tokenizer.model has a piece of an unknown type, or a score that is not a number")

        # What transformers adds to it, by id
        for i, s, special, a in self.added():
            if i < len(pieces) and pieces[i] == s and (special or kinds[i] == USER_DEFINED):
                kinds[i] = CONTROL if special else kinds[i]
                continue
            if a.get("lstrip") or a.get("rstrip") or a.get("single_word") or a.get("normalized") and not special:
                raise Refused(f"tokenizer_config.json matches {s!r} not as it stands, which steer.c does not know")
            if not special and pretok == binfile.TEXT_SPACED:
                if USER_DEFINED in kinds:
                    raise Refused(f"tokenizer_config.json adds {s!r} to the pieces that tokenizer.model matches in "
                                  "texts, and puts a space before texts, which steer.c does not know")
                pretok = binfile.SPACED           # behind such a token, too
            if not len(pieces) <= i < rows:
                raise Refused(f"tokenizer_config.json gives {s!r} the id {i}")
            while len(pieces) <= i:
                pieces.append("")
                kinds.append(UNUSED)
                scores.append(0.0)
            pieces[i], kinds[i] = s, CONTROL if special else USER_DEFINED
        if len(pieces) > rows:
            raise Refused(f"tokenizer.model has {len(pieces)} pieces, the embedding {rows} rows")
        rest = rows - len(pieces)
        names = {s: i for i, (s, k) in enumerate(zip(pieces, kinds)) if k == CONTROL}

        def begins(key, field, standard):
            i = trainer.get(field, standard)
            return self.token(key) or (pieces[i] if i < len(pieces) and kinds[i] == CONTROL else "")
        bos, eos = begins("bos_token", 41, 1), begins("eos_token", 42, 2)
        eot = self.ends(names, rows) or [i for s, i in names.items() if s == eos]
        return sentencepiece(pieces + [""] * rest, kinds + [UNUSED] * rest, scores + [0.0] * rest, pretok) | dict(
            eot=eot, bos=bos, eos=eos, add_bos=bool(self.tokenizer_config.get("add_bos_token", True)))

    def rule(self, t):
        """(pretok, nfc, whether marks are letters) of tokenizer.json, or a refusal that names what steer.c
        does not have."""
        normalizer, pre = t.get("normalizer"), t.get("pre_tokenizer") or {}
        chain = (normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]) if normalizer else []
        idle = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
        if chain in ([REPLACE], [PREPEND, REPLACE]) and pre in ({}, idle):
            return (binfile.SENTENCEPIECE if len(chain) == 1 else binfile.SPACED), 0, 0
        if normalizer is None and pre.get("type") == "Metaspace" and pre.get("replacement") == LOW_LINE:
            scheme = pre.get("prepend_scheme", "always" if pre.get("add_prefix_space", True) else "never")
            if pre.get("split", True) is False and scheme in METASPACE:
                return METASPACE[scheme], 0, 0
        if normalizer not in (None, {"type": "NFC"}):
            raise Refused(f"tokenizer.json has the normalizer {json.dumps(normalizer)[:80]}, which steer.c does "
                          "not know (NFC is known, and SentencePiece's spaces)")
        parts = pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]
        kinds = [p.get("type") for p in parts]
        if kinds[-1] == "ByteLevel" and not parts[-1].get("add_prefix_space"):
            if kinds[:-1] == ["Digits"] and parts[0].get("individual_digits") and parts[-1].get("use_regex"):
                return binfile.GPT2, int(normalizer is not None), 0
            if kinds[:-1] == ["Split"] and not parts[-1].get("use_regex") and not parts[0].get("invert"):
                rule = SPLITS.get(parts[0]["pattern"].get("Regex"))
                if rule and parts[0].get("behavior") == "Isolated":
                    return rule[0], int(normalizer is not None), rule[1]
        raise Refused(f"tokenizer.json has the pre-tokenizer {json.dumps(pre)[:160]}, which steer.c does not know")

    def chat_template(self):
        """The source, or "" where there is none."""
        path = self.path / "chat_template.jinja"
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except UnicodeDecodeError as e:
                raise Refused(f"{path} is not UTF-8 ({e})")
        source = self.tokenizer_config.get("chat_template") or ""
        if type(source) is list:                  # one a purpose
            source = next((s.get("template") for s in source if type(s) is dict and s.get("name") == "default"), None)
        if type(source) is not str:
            raise Refused("tokenizer_config.json has a chat_template that is not a text")
        return source
