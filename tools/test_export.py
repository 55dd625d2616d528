"""Check export.py without a network, beside ./steer.

    python3 tools/test_export.py              everything
    python3 tools/test_export.py files        what needs only numpy, gguf and jinja2: made-up files and folders that
                                              must be refused, each with its one sentence, and a valid
                                              file, damaged at random in hundreds of ways
    python3 tools/test_export.py networks     what needs torch, transformers and tokenizers, too: random
                                              models written as llama.cpp's converter writes them,
                                              exported, and run in transformers beside the originals;
                                              --report FILE keeps their errors (checked.py)

The last line is "N passed, N failed".
"""
import argparse
import functools
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import gguf
import numpy as np

import binfile
import checked
import export
import folder
import results
from tokenizer_parity import compare, message

STEER = export.STEER
SECONDS = 120                                 # that any file may take beside busy processes
MUTATIONS = 400
passed = failed = 0
CHATML = ("{% for m in messages %}{% if loop.first and m.role != 'system' %}"
          "<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}{{ '<|im_start|>' + m.role + '\n' "
          "+ m.content | trim + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
GEMMA = ("{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
         "{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
         "{{ m.content | trim }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}")
# As Mistral's: a system prompt inside the first question, answers trimmed and questions not
INSIDE = ("{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}<|im_start|>{% if loop.first and "
          "messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}{{ m.content + ':' }}"
          "{% else %}{{ m.content | trim + '<|im_end|>' }}{% endif %}{% endfor %}")

# As Llama 3.2's: a system block in any case
ALWAYS = ("{% if messages[0].role == 'system' %}{% set system, turns = messages[0].content | trim, messages[1:] %}"
          "{% else %}{% set system, turns = '', messages %}{% endif %}<|im_start|>system\nDay 7\n{{ system }}<|im_end|>"
          "{% for m in turns %}<|im_start|>{{ m.role + '\n' + m.content | trim }}<|im_end|>{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
# As Qwen3's: an answer that is not to be thought about begins with an empty thought
THINKING = ("{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n"
            "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}")


def check(what, good, figure=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok   ' if good else 'FAIL '} {what} {figure}", flush=True)


def run_export(path, *more, out=None, before=None):
    """(output, status, what stderr got) of the exporter in a process of its own, which `before` can
    prepare; status None: it did not end in time. A fork, because the tables of Unicode take a second."""
    out = out or path.with_suffix(".bin")
    with tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(err.fileno(), 2)
                if before:
                    before()
                export.main([str(a) for a in (path, "-o", out, *more)])
                status = 0
            except SystemExit as e:
                print(e.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        end, status = time.monotonic() + SECONDS, None
        while status is None and time.monotonic() < end:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
            else:
                time.sleep(0.005)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        err.seek(0)
        return out, status, err.read().decode().strip()


# ---- made-up files -------------------------------------------------------------------------------

TOKENS = [*(binfile.LETTER[b] for b in range(256)), "th", "the", "Ġthe", "<|im_start|>", "<|im_end|>", "<pad>"]
TYPES = [1] * 259 + [3, 3, 5]
MERGES = ["t h", "th e", "Ġ the"]


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Small:
    """A valid GGUF of one block, in parts that a test can change: metadata as key -> (writer's method,
    value), tensors as name -> array."""

    def __init__(self):
        self.text, self.types, self.merges = list(TOKENS), list(TYPES), list(MERGES)
        self.arch, self.endian = "llama", gguf.GGUFEndian.LITTLE
        self.meta = {
            "general.name": ("string", "small"),
            ".block_count": ("uint32", 1), ".context_length": ("uint32", 64),
            ".embedding_length": ("uint32", 8),
            ".feed_forward_length": ("uint32", 8), ".attention.head_count": ("uint32", 4),
            ".attention.head_count_kv": ("uint32", 2), ".attention.key_length": ("uint32", 4),
            ".attention.layer_norm_rms_epsilon": ("float32", 1e-5), ".rope.freq_base": ("float32", 1e4),
            "tokenizer.ggml.model": ("string", "gpt2"), "tokenizer.ggml.pre": ("string", "smollm"),
            "tokenizer.ggml.bos_token_id": ("uint32", 259), "tokenizer.ggml.eos_token_id": ("uint32", 260),
            "tokenizer.chat_template": ("string", CHATML)}
        rng = np.random.default_rng(0)
        shapes = {"token_embd": (262, 8), "output_norm": (8,), "blk.0.attn_norm": (8,),
                  "blk.0.attn_q": (16, 8), "blk.0.attn_k": (8, 8), "blk.0.attn_v": (8, 8),
                  "blk.0.attn_output": (8, 16), "blk.0.ffn_norm": (8,), "blk.0.ffn_gate": (8, 8),
                  "blk.0.ffn_up": (8, 8), "blk.0.ffn_down": (8, 8)}
        self.tensors = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32)
                        for name, shape in shapes.items()}
        self.scores = None
        self.patches = []                                    # (bytes, other bytes) of the written file
        self.cut = None                                      # its length

    def set(self, key, kind, value):
        self.meta[key] = (kind, value)

    def template(self, source):
        self.set("tokenizer.chat_template", "string", source)

    def write(self, path):
        w = gguf.GGUFWriter(path, self.arch, endianess=self.endian)
        for key, (kind, value) in self.meta.items():
            getattr(w, f"add_{kind}")(self.arch + key if key[0] == "." else key, value)
        for key, values in ("tokens", self.text), ("token_type", self.types), ("merges", self.merges), \
                ("scores", self.scores):
            if values:
                w.add_array(f"tokenizer.ggml.{key}", values)
        for name, a in self.tensors.items():
            w.add_tensor(name, a)
        finish(w)
        raw = path.read_bytes()
        for old, new in self.patches:
            assert raw.count(old) == 1, (old, raw.count(old))
            raw = raw.replace(old, new)
        path.write_bytes(raw[:self.cut])


def meta(key, kind, *values):
    """Changes of a Small that set a key of the metadata."""
    return [lambda s, v=v: s.set(key, kind, v) for v in values]


def drop(key):
    return lambda s: s.meta.pop(key)


def patch(old, new):
    return lambda s: s.patches.append((old, new))


def template(source):
    return lambda s: s.template(source)


def put(field, i, value):
    return lambda s: getattr(s, field).__setitem__(i, value)


def weight(name, value):
    return lambda s: s.tensors[name].__setitem__(..., value)


def tensor(name, a):
    return lambda s: s.tensors.__setitem__(name, a)


def ones(*shape):
    return np.ones(shape, np.float32)


def both(*changes):
    return lambda s: [change(s) for change in changes]


def field(name, value):
    return lambda s: setattr(s, name, value)


def length(n):
    return struct.pack("<Q", n)


def gemma(s):
    """Gemma 2's network, with Qwen 2's pre-tokenizer and Unicode tables."""
    s.arch = "gemma2"
    s.set("tokenizer.ggml.pre", "string", "qwen2")
    for key, value in ("attn_logit", 50.0), ("final_logit", 30.0):
        s.set(f".{key}_softcapping", "float32", value)
    s.set(".attention.sliding_window", "uint32", 16)
    for name in "post_attention_norm", "post_ffw_norm":
        s.tensors[f"blk.0.{name}.weight"] = ones(8)


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "t", "h", "e", "I", "th", "▁I",
          "the", "▁the", "\n\n"]
PIECE_TYPES = [2, 3, 3] + [6] * 256 + [1] * 9 + [4]


def sentencepiece(s):
    """Gemma's tokenizer in the GGUF: code points, bytes for what is no piece, user-defined pieces."""
    n = len(PIECES)
    s.text, s.types, s.merges = list(PIECES), list(PIECE_TYPES), None
    s.scores = [0.0] * 259 + [-float(i) for i in range(n - 259)]
    s.set("tokenizer.ggml.model", "string", "llama")
    s.set("tokenizer.ggml.add_space_prefix", "bool", False)
    s.set("tokenizer.ggml.bos_token_id", "uint32", 1)
    s.set("tokenizer.ggml.eos_token_id", "uint32", 2)
    s.tensors["token_embd.weight"] = ones(n, 8)
    s.template(CHATML.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>"))


def qwen3(s):
    s.arch = "qwen3"
    for name in "attn_q_norm", "attn_k_norm":
        s.tensors[f"blk.0.{name}.weight"] = ones(4)


def gemma3(s):
    gemma(s)
    qwen3(s)
    s.arch = "gemma3"


NAN, INF, MAX = float("nan"), float("inf"), 2**32 - 1
LOOPS = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
# Words of the one sentence, and the changes of a Small that must lead to it
REFUSED = [
    ("attention.head_count is", meta(".attention.head_count", "uint32", 0, 1025, MAX)),
    ("attention.head_count is", meta(".attention.head_count", "string", "four")),
    ("attention.head_count is", meta(".attention.head_count", "float32", 4.5, NAN)),
    ("attention.head_count is", meta(".attention.head_count", "bool", True)),
    ("attention.head_count is", meta(".attention.head_count", "int64", -4, 2**62)),
    ("lacks the metadata llama.attention.head_count", [drop(".attention.head_count")]),
    ("differs between blocks", meta(".attention.head_count", "array", [4, 2])),
    ("attention.head_count is", meta(".attention.head_count", "array", ["4", "4"])),
    ("attention.head_count_kv is", meta(".attention.head_count_kv", "uint32", 0, 5000)),
    ("can't share", meta(".attention.head_count_kv", "uint32", 8, 3)),
    ("embedding_length is", meta(".embedding_length", "uint32", 0, MAX)),
    ("block_count is", meta(".block_count", "uint32", 0, 513, 10**9, MAX)),
    ("feed_forward_length is", meta(".feed_forward_length", "uint32", 0, MAX)),
    ("context_length is", meta(".context_length", "uint32", 0, 2**24 + 1, MAX)),
    ("key_length is", meta(".attention.key_length", "uint32", 0, 2048)),
    ("different lengths", meta(".attention.value_length", "uint32", 6)),
    ("rotary embedding of", meta(".rope.dimension_count", "uint32", 2)),
    ("odd number", [both(*meta(".attention.key_length", "uint32", 3),
                         tensor("blk.0.attn_q.weight", ones(12, 8)), tensor("blk.0.attn_k.weight", ones(6, 8)),
                         tensor("blk.0.attn_v.weight", ones(6, 8)),
                         tensor("blk.0.attn_output.weight", ones(8, 12)))]),
    ("layer_norm_rms_epsilon is", meta(".attention.layer_norm_rms_epsilon", "float32", NAN, INF, -1e-5)),
    ("layer_norm_rms_epsilon is", meta(".attention.layer_norm_rms_epsilon", "float64", 1e300)),
    ("rope.freq_base is", meta(".rope.freq_base", "float32", 0.0, NAN, INF, -1e4)),
    ("rope.freq_base is", meta(".rope.freq_base", "float64", 1e-300)),
    ("frequencies are not finite", [tensor("rope_freqs.weight", np.zeros(2, np.float32)),
                                    tensor("rope_freqs.weight", np.full(2, NAN, np.float32))]),
    ("has 3 factors", [tensor("rope_freqs.weight", ones(3))]),
    ("rope.scaling.factor is", [both(*meta(".rope.scaling.type", "string", "linear"), change)
                                for change in meta(".rope.scaling.factor", "float32", 0.0, NAN)]),
    ("lacks the metadata llama.rope.scaling.factor", meta(".rope.scaling.type", "string", "linear")),
    ("yarn", meta(".rope.scaling.type", "string", "yarn")),
    ("rope.scaling.type is", meta(".rope.scaling.type", "uint32", 1)),
    ("attention.scale is", meta(".attention.scale", "float32", NAN, -1.0)),
    ("_softcapping is", [both(gemma, change) for key in ("attn", "final")
                         for change in meta(f".{key}_logit_softcapping", "float32", NAN, INF, -1.0)]),
    ("lacks the tensor blk.0.attn_q_norm.weight", [field("arch", "qwen3")]),
    ("has the tensor blk.0.attn_k_norm.weight", [both(qwen3, field("arch", "llama"))]),
    ("is not a window in all blocks", [both(gemma3, *meta(".attention.sliding_window_pattern", "array", [True, True]))]),
    ("rope.freq_base_swa is", [both(gemma3, change) for change in meta(".rope.freq_base_swa", "float32", 0.0, NAN)]),
    ("sliding_window is", [both(gemma, change) for change in meta(".attention.sliding_window", "int32", -1)]),
    ("which steer.c does not know", meta(".attn_logit_softcapping", "float32", 50.0)),
    ("which steer.c does not know", meta(".logit_scale", "float32", 2.0, NAN)),
    ("which steer.c does not know", meta(".new\nline", "string", "two\nlines\x1b[2J")),
    ("is one of", meta("split.count", "uint16", 3)),
    ("is one of", meta("split.count", "string", "3")),
    ("architecture", [field("arch", "phi3"), field("arch", "qwen35"), patch(b"general.architecture", b"general.architectura")]),
    ("general.architecture is", [patch(b"architecture" + struct.pack("<IQ", 8, 5) + b"llama",
                                       b"architecture" + struct.pack("<IIQ", 9, 0, 1) + b"l")]),
    ("general.name", [patch(b"small", b"sm\xff\xffl")] + meta("general.name", "uint8", 7)),

    ("tokenizer.ggml.model is", meta("tokenizer.ggml.model", "uint32", 7)),
    ("tokenizer model", meta("tokenizer.ggml.model", "string", "bert", "t5")),
    ("lacks tokenizer.ggml.scores", meta("tokenizer.ggml.model", "string", "llama")),
    ("pre-tokenizer", meta("tokenizer.ggml.pre", "string", "gpt-2")),
    ("lacks the metadata tokenizer.ggml.pre", [drop("tokenizer.ggml.pre")]),
    ("lacks the metadata tokenizer.ggml.tokens", [field("text", None)]),
    ("tokenizer.ggml.tokens is", [field("text", [1, 2, 3])]),
    ("lacks the metadata tokenizer.ggml.token_type", [field("types", None)]),
    ("tokenizer.ggml.token_type is", [field("types", [1.0] * 262), field("types", [True] * 262)]),
    ("has 262 tokens, the embedding 200 rows",
     [tensor("token_embd.weight", ones(200, 8))]),
    ("token 5 ('", [put("types", 5, 7), put("types", 5, -1)]),
    ("token 5 ('a b') is not written", [put("text", 5, "a b")]),
    ("token 259 (b'<|im\\x00start|>') is special and holds a zero byte",
     [put("text", 259, "<|im\0start|>")]),
    ("eos_token_id is 262", meta("tokenizer.ggml.eos_token_id", "uint32", 262)),
    ("eos_token_id is -1", meta("tokenizer.ggml.eos_token_id", "int32", -1)),
    ("eot_token_id is", meta("tokenizer.ggml.eot_token_id", "uint32", MAX)),
    ("eot_token_id is", meta("tokenizer.ggml.eot_token_id", "string", "260")),
    ("bos_token_id is", meta("tokenizer.ggml.bos_token_id", "int32", 262, -1)),
    ("add_bos_token is 'false', not true or false", meta("tokenizer.ggml.add_bos_token", "string", "false")),
    ("add_space_prefix is 0", [both(sentencepiece, *meta("tokenizer.ggml.add_space_prefix", "uint32", 0))]),
    ("no end-of-turn token", [both(drop("tokenizer.ggml.eos_token_id"), put("text", 260, "<end>"))]),
    ('no token "I"', [put("text", ord("I"), "II")]),
    ("merge 1, of tokens 116 and 104, is there before as merge 0", [put("merges", 1, "t h")]),
    ("merge 1 ('th x')", [put("merges", 1, "th x"), ]),
    ("merge 2 ('Ġthe')", [put("merges", 2, "Ġthe")]),
    ("lacks tokenizer.ggml.scores", [both(sentencepiece, field("scores", scores)) for scores in
                                     (None, [0.0] * 9, [NAN] * len(PIECES))]),
    ("are the same", [both(sentencepiece, field("scores", [0.0] * len(PIECES)))]),
    ("no token for some byte", [both(sentencepiece, put("types", 3, 5))]),
    ("tokenizer.ggml.merges is", [field("merges", [1, 2])]),

    ("Jinja", [template("{% for %}"), template("{% unknown %}"), template("{{ 'open"),
               template("{% break %}"),
               template("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")]),
    ("ZeroDivisionError", [template("{{ 1 / 0 }}" + CHATML),
                           template("{{ 1 % (messages|length - 1) }}" + CHATML)]),
    ("loader", [template("{% include 'x' %}" + CHATML), template("{% import '/etc/passwd' as x %}" + CHATML),
                template("{% extends 'x' %}")]),
    ("ecursion", [template("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}" + CHATML)]),
    ("not done after", [template(LOOPS + CHATML), template("{{ 9 ** (9 ** 9) }}" + CHATML)]),
    ("memory", [template("{{ 'a' * 10 ** 10 }}" + CHATML)]),
    ("can't be cut", [template("{{ messages | length }}" + CHATML),
                      template("{{ range(999)|random }}" + CHATML),
                      template("{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>"
                               "{% endfor %}"),
                      template("always the same"), template("{{ '%s' % messages }}")]),
    ("does not render", [template("{{ messages[7].content }}"), template("{{ raise_exception('no\n\nno') }}"),
                         template("{{ ''.__class__.__mro__ }}" + CHATML), template("{{ 1 + 'a' }}" + CHATML),
                         template("{{ messages.append(1) }}" + CHATML)]),
    ("characters around", [template("{{ 'a' * 99999 }}" + CHATML)]),
    ("zero byte", [template("{{ '\\0' }}" + CHATML), template("{{ '\\ud800' }}" + CHATML)]),
    ("no token between", [template("{% for m in messages %}{{ m.content }}{% endfor %}")]),
    ("chat_template", meta("tokenizer.chat_template", "array", ["a", "b"])),

    ("not finite numbers", [weight("blk.0.ffn_up.weight", NAN), weight("blk.0.ffn_norm.weight", -INF),
                            weight("token_embd.weight", INF), weight("token_embd.weight", 3.4e38)]),
    ("lacks the tensor", [lambda s: s.tensors.pop("blk.0.ffn_up.weight"),
                          lambda s: s.tensors.pop("token_embd.weight"),
                          tensor("token_embd.weight", ones(262))]),
    ("has shape", [tensor("blk.0.ffn_up.weight", ones(8, 9)),
                   tensor("blk.0.ffn_up.weight", ones(1, 8, 8)),
                   tensor("blk.0.ffn_up.weight", ones(64))]),
    ("has type", [tensor("blk.0.ffn_up.weight", np.ones((8, 8), np.float64)),
                  tensor("blk.0.ffn_norm.weight", np.ones(8, np.int32)),
                  tensor("rope_freqs.weight", np.ones(2, np.int8))]),
    ("has the tensor", [tensor("blk.0.attn_k.bias", ones(8))]),

    ("big-endian", [field("endian", gguf.GGUFEndian.BIG)]),
    ("not a GGUF", [field("cut", n) for n in (0, 1, 4, 20, 100, 5000, -1)]),
    ("not a GGUF", [patch(b"GGUF", b"GGUG"),
                    patch(struct.pack("<IQQ", 3, 11, 19), struct.pack("<IQQ", 3, 11, 2**62)),
                    patch(struct.pack("<IQQ", 3, 11, 19), struct.pack("<IQQ", 3, 2**62, 19)),
                    patch(b"block_count" + struct.pack("<I", 4), b"block_count" + struct.pack("<I", 99)),
                    patch(b"block_count" + struct.pack("<I", 4), b"block_count" + struct.pack("<I", 9)),
                    both(*meta(".block_counu", "uint32", 1), patch(b"block_counu", b"block_count")),
                    patch(b"blk.0.attn_k.weight", b"blk.0.attn_v.weight"),
                    patch(b"llama.feed_forward_length", b"llama.feed_forward_lengt\xff"),
                    patch(length(19) + b"blk.0.attn_k.weight", length(2**63) + b"blk.0.attn_k.weight")]),
    ("not a GGUF", [patch(b"tokenizer.ggml.tokens" + struct.pack("<IIQ", 9, 8, 262),
                          b"tokenizer.ggml.tokens" + struct.pack("<IIQ", 9, kind, n))
                    for kind, n in ((8, 2**60), (0, 2**60), (9, 2**60), (8, 2**64 - 1), (77, 262))]),
    # The array's length alone, whatever follows
    ("more than 4000000 pieces", [patch(b"tokenizer.ggml.merges" + struct.pack("<IIQ", 9, 8, 3),
                                        b"tokenizer.ggml.merges" + struct.pack("<IIQ", 9, 0, 4000000))]),
    ("not a GGUF", [patch(b"ffn_up.weight" + struct.pack("<I", 2), b"ffn_up.weight" + struct.pack("<I", n))
                    for n in (3, MAX)]),
    ("not a GGUF", [patch(b"blk.0.ffn_up.weight" + struct.pack("<IQQ", 2, 8, 8),
                          b"blk.0.ffn_up.weight" + struct.pack("<IQQ", 2, a, b))
                    for a, b in ((2**32, 2**32), (8, 2**61), (2**63, 2))]),
    ("has shape", [patch(b"blk.0.ffn_up.weight" + struct.pack("<IQQ", 2, 8, 8),
                         b"blk.0.ffn_up.weight" + struct.pack("<IQQ", 2, 0, 8))]),
]


def tokenizer_json():
    """The tokenizer of the GGUFs above."""
    words = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, (s, k) in enumerate(zip(TOKENS, TYPES)) if k == 3]
    normal = {s: i for i, (s, k) in enumerate(zip(TOKENS, TYPES)) if k == 1}
    return {"added_tokens": added, "normalizer": None, "pre_tokenizer": words,
            "model": {"type": "BPE", "vocab": normal, "merges": list(MERGES)}}


class SmallFolder:
    """The valid GGUF above as a Hugging Face folder, in parts that a test can change."""

    def __init__(self):
        self.config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
                       "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
                       "intermediate_size": 8, "vocab_size": 262, "max_position_embeddings": 64,
                       "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu",
                       "tie_word_embeddings": True}
        names = {v.removesuffix(".weight"): folder.NAMES[k] for k, v in export.NAMES.items() if k in folder.NAMES}
        self.tensors = {}
        for name, a in Small().tensors.items():
            name = name.removesuffix(".weight")
            there = {"token_embd": "embed_tokens.weight", "output_norm": "norm.weight"}.get(name)
            there = there or "layers.0." + names[name.removeprefix("blk.0.")]
            self.tensors[f"model.{there}"] = a
        self.tokenizer = tokenizer_json()
        self.tokenizer_config = {"bos_token": TOKENS[259], "eos_token": TOKENS[260], "chat_template": CHATML}
        self.generation = {}
        self.index = self.cut = self.header = self.model = self.jinja = None

    def write(self, path):
        path.mkdir(exist_ok=True)
        for name, raw in ("tokenizer.model", self.model), ("chat_template.jinja", self.jinja):
            (path / name).unlink(missing_ok=True)
            if raw is not None:
                (path / name).write_bytes(raw)
        files = {"config": self.config, "tokenizer": self.tokenizer, "tokenizer_config": self.tokenizer_config,
                 "generation_config": self.generation, "model.safetensors.index": self.index}
        for name, value in files.items():
            where = path / f"{name}.json"
            where.unlink(missing_ok=True)
            if value is not None:
                where.write_text(value if type(value) is str else json.dumps(value))
        at, listed = 0, {"__metadata__": {"format": "pt"}}
        for name, a in self.tensors.items():
            kind = {"float32": "F32", "float64": "F64", "float16": "F16"}[a.dtype.name]
            listed[name] = {"dtype": kind, "shape": a.shape, "data_offsets": [at, at + a.nbytes]}
            at += a.nbytes
        head = json.dumps(listed if self.header is None else self.header(listed)).encode()
        raw = len(head).to_bytes(8, "little") + head + b"".join(a.tobytes() for a in self.tensors.values())
        (path / "model.safetensors").write_bytes(raw[:self.cut])


def fact(key, *values):
    return [lambda s, v=v: s.config.__setitem__(key, v) for v in values]


def part(name, key, value):
    """Changes one value of tokenizer.json, a dotted path, or of another file."""
    def change(s):
        at = getattr(s, name)
        *path, last = key.split(".")
        for k in path:
            at = at[int(k)] if type(at) is list else at[k]
        at[int(last) if type(at) is list else last] = value
    return change


def listed(name, key, value):
    return lambda s: setattr(s, "header", lambda t: t[f"model.{name}"].__setitem__(key, value) or t)


# Qwen3.5's words, which hold marks
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
MARKED = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]}


def renamed(old, new):
    def change(s):
        s.tokenizer["model"]["vocab"][new] = s.tokenizer["model"]["vocab"].pop(old)
    return change


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def pieces(s):
    """The tokenizer.model of the GGUF's pieces, which puts a space before a text; two more rows."""
    scores = [0.0] * 259 + [-float(i) for i in range(len(PIECES) - 259)]
    model = [(1, message((1, t.encode()), (2, score), (3, k))) for t, score, k in zip(PIECES, scores, PIECE_TYPES)]
    s.model = message(*model, (2, message((3, 2), (35, 1))), (3, message((3, 1), (4, 0))))
    s.tokenizer = None
    s.tokenizer_config = {"chat_template": CHATML.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>")}
    s.config["vocab_size"] = len(PIECES) + 2
    s.tensors["model.embed_tokens.weight"] = ones(len(PIECES) + 2, 8)


def more_model(*more):
    return lambda s: setattr(s, "model", s.model + message(*more))


def adds(i, name, special, **more):
    return lambda s: s.tokenizer_config.__setitem__("added_tokens_decoder", {
        i: {"content": name, "special": special, "normalized": False, **more}})


def pieces_json(scheme):
    """Those pieces as transformers writes them."""
    def change(s):
        pieces(s)
        s.model = None
        added = [{"id": i, "content": PIECES[i], "special": k == 3, "normalized": False}
                 for i, k in enumerate(PIECE_TYPES) if k in (3, 4)]
        vocab = {t: i for i, t in enumerate(PIECES)}
        merges = ["t h", "▁ I", "th e", "▁ the"]
        s.tokenizer = {"added_tokens": added, "normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": scheme},
                       "model": {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": True}}
        s.tokenizer_config |= {"bos_token": "<s>", "eos_token": "</s>"}
    return change


UP = "model.layers.0.mlp.up_proj.weight"
FOLDER_REFUSED = [
    ("model_type = 'phi3'", fact("model_type", "phi3")),
    ("model_type = 'qwen3_5_text'", [both(*fact("text_config", {"model_type": "qwen3_5_text", "hidden_size": 8}),
                                          *fact("model_type", "qwen3_5"))]),
    ("model_type = ['llama']", fact("model_type", ["llama"])),
    ("quantised", [*fact("quantization_config", {"bits": 4}),
                   lambda s: setattr(s, "config", {"quantization_config": {"bits": 4}, "text_config": s.config})]),
    ("has logit_scale = 2", fact("logit_scale", 2)),
    ("has attention_bias = True", fact("attention_bias", True)),
    ("has hidden_act = 'gelu'", fact("hidden_act", "gelu")),
    ("lacks hidden_size", fact("hidden_size", None)),
    ("has num_attention_heads =", fact("num_attention_heads", 0, -4, 1025, "4", True, 4.5, [4])),
    ("has num_hidden_layers =", fact("num_hidden_layers", 0, 10**30)),
    ("can't share", fact("num_key_value_heads", 3)),
    ("odd number", [both(*fact("head_dim", 3), *(
        lambda s, n=n, sh=sh: s.tensors.__setitem__(f"model.layers.0.self_attn.{n}_proj.weight", ones(*sh))
        for n, sh in {"q": (12, 8), "k": (6, 8), "v": (6, 8), "o": (8, 12)}.items()))]),
    ("has rms_norm_eps =", fact("rms_norm_eps", -1.0, NAN, INF, "1e-5")),
    ("the rope parameter rope_theta =", fact("rope_theta", 0, NAN, -1.0, "x")),
    ("rope scaling of type 'yarn'", fact("rope_scaling", {"type": "yarn", "factor": 4})),
    ("the rope parameter factor =", fact("rope_scaling", {"type": "linear"}, {"type": "linear", "factor": 0})),
    ("the rope parameter low_freq_factor", fact("rope_scaling", {"rope_type": "llama3", "factor": 8.0})),
    ("partial_rotary_factor", fact("rope_scaling", {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5})),
    ("rope parameters", fact("rope_scaling", [1])),
    ("sliding_window", [both(*fact("model_type", "mistral"), *change) for change in
                        (fact("sliding_window", 0), fact("sliding_window", -1))]),
    ("windows in blocks", [both(*fact("model_type", "qwen2"), *fact("num_hidden_layers", 4),
                                *fact("use_sliding_window", True), *fact("sliding_window", 8),
                                *fact("max_window_layers", 2))]),
    ("not a kind of attention", [both(*fact("model_type", "qwen2"), *fact("layer_types", kinds))
                                 for kinds in (["full_attention"] * 2, ["linear_attention"], [{}])]),
    ("is not JSON", [field("config", "{"), field("config", "[" * 10**5)]),
    ("is not a JSON object", [field("config", "[]")]),
    ("nor a folder with a config.json", [field("config", None)]),

    ("has no tokenizer.json and no tokenizer.model", [field("tokenizer", None)]),
    ("is of type 'Unigram'", [part("tokenizer", "model.type", "Unigram")]),
    ("end_of_word_suffix", [part("tokenizer", "model.end_of_word_suffix", "</w>")]),
    ("the normalizer", [part("tokenizer", "normalizer", {"type": "NFKC"})]),
    ("the pre-tokenizer", [part("tokenizer", "pre_tokenizer", None),
                           part("tokenizer", "pre_tokenizer", METASPACE | {"split": True}),
                           part("tokenizer", "pre_tokenizer", METASPACE | {"prepend_scheme": "second"}),
                           part("tokenizer", "pre_tokenizer.pretokenizers.1.add_prefix_space", True),
                           part("tokenizer", "pre_tokenizer.pretokenizers.0", {
                               "type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"})]),
    ("is not as the tokenizers library", [part("tokenizer", "model", None), part("tokenizer", "model", {}),
                                          part("tokenizer", "model.merges", ["abc"])]),
    ("names a token that the vocabulary lacks", [part("tokenizer", "model.merges", ["t q"])]),
    ("the id -1", [part("tokenizer", "model.vocab.a", -1), part("tokenizer", "added_tokens.0.id", -1)]),
    ("the embedding 262 rows", [part("tokenizer", "model.vocab.a", 262)]),
    ("not written in", [part("tokenizer", "model.vocab.a b", 5)]),
    ("no end-of-turn token", [both(part("tokenizer_config", "eos_token", None),
                                   part("tokenizer_config", "chat_template", None))]),
    ("truncated or not SentencePiece's", [both(pieces, change) for change in (
        *(lambda s, n=n: setattr(s, "model", s.model[:n]) for n in (1, 5, 9, 500)),
        field("model", b"\xff" * 20), field("model", b"\x0a\x02\x08\x01"), field("model", b"\x0b"))]),
    ("is not BPE", [both(pieces, more_model((2, message((3, 1)))))]),
    ("no byte_fallback", [both(pieces, more_model((2, message((35, 0)))))]),
    ("spaces behind words", [both(pieces, more_model((2, message((24, 1)))))]),
    ("normalises texts", [both(pieces, more_model((3, message(field))))
                          for field in ((2, b"map"), (4, 1), (5, 0))]),
    ("an unknown type", [both(pieces, more_model((1, message((1, b"x"), (3, 7)))))]),
    ("pieces, the embedding", [both(pieces, more_model(*[(1, message((1, b"x")))] * 9))]),
    ("has added_tokens_decoder =", [both(pieces, part("tokenizer_config", "added_tokens_decoder", [1]))]),
    ("the folder adds a token", [both(pieces, part("tokenizer_config", "added_tokens_decoder", {i: a})) for i, a in (
        ("x", {"content": "a"}), ("-1", {"content": "a"}), ("280", "a"), ("280", {"content": 5}),
        ("280", {"content": "\ud800"}))]),
    ("the id 900", [both(pieces, adds("900", "<tool>", True))]),
    ("matches '<tool>' not as it stands", [both(pieces, adds(str(len(PIECES)), "<tool>", False, rstrip=True))]),
    ("adds '<tool>' to the pieces", [both(pieces, adds(str(len(PIECES)), "<tool>", False))]),
    ("not as it stands", [both(part("tokenizer", "added_tokens.0.special", False),
                                   part("tokenizer", "added_tokens.0.lstrip", True))]),
    ("eos_token_id is 262", [part("generation", "eos_token_id", [260, 262])]),
    ("eos_token_id is 'x'", fact("eos_token_id", "x")),
    ("chat_template that is not a text", [part("tokenizer_config", "chat_template", v) for v in ({"a": 1}, ["a"])]),
    ("chat_template.jinja is not UTF-8", [field("jinja", b"\xe9")]),
    ("half a surrogate pair", [part("tokenizer_config", "bos_token", "\ud800")]),
    ("valid Jinja", [part("tokenizer_config", "chat_template", "{% for %}")]),

    ("has no safetensors", [field("cut", -10**9)]),
    ("not a safetensors file", [field("cut", n) for n in (0, 7, 8, 100, -1)]),
    ("not a safetensors file", [listed("norm.weight", key, value) for key, value in (
        ("data_offsets", [0, 10**30]), ("data_offsets", [0]), ("data_offsets", [32, 0]), ("shape", [2**62, 8]),
        ("shape", [-8]), ("shape", 8), ("shape", ["8"]), ("shape", [True] * 8), ("dtype", []))]),
    ("not a safetensors file", [field("header", lambda t: []), field("header", lambda t: 7)]),
    ("is not in the folder", [field("index", {"weight_map": {"x": name}}) for name in ("no.safetensors", "../x")]),
    ("no weight_map", [field("index", {}), field("index", {"weight_map": {"x": 1}})]),
    ("lacks the tensor", [lambda s: s.tensors.pop(UP), lambda s: s.tensors.pop("model.embed_tokens.weight"),
                          *fact("tie_word_embeddings", False)]),
    ("has shape", [tensor(UP, ones(8, 9)), tensor(UP, ones(64)), *fact("intermediate_size", 9)]),
    ("has type F64", [tensor(UP, np.ones((8, 8)))]),
    (f"{UP} holds values that are not finite", [tensor(UP, ones(8, 8) * NAN)]),
    ("has the tensor model.layers.0.self_attn.q_norm.weight",
     [tensor("model.layers.0.self_attn.q_norm.weight", ones(4))]),
]


def test_folders(path):
    """Folders that must be refused, each with its one sentence, and some that must not."""
    for words, changes in FOLDER_REFUSED:
        for i, change in enumerate(changes):
            small = SmallFolder()
            change(small)
            small.write(path)
            if small.cut == -10**9:
                (path / "model.safetensors").unlink()
            out, status, err = run_export(path, before=without_steer)
            left = [p.name for p in path.parent.iterdir() if p != path]
            check(f"refused: {words} ({i + 1} of {len(changes)})",
                  status == 1 and words in err and one_sentence(err) and not left,
                  "" if words in err else f"{status} {err} {left or ''}")
            for p in left:
                Path(path.parent, p).unlink()

    def opens(what, *changes):
        return exported(what, path, *changes, small=SmallFolder())
    out = opens("a folder")
    text = binfile.read(out)[1]
    Small().write(path.with_suffix(".gguf"))
    out, *_ = run_export(path.with_suffix(".gguf"), out=out)
    path.with_suffix(".gguf").unlink()
    check("    its tokenizer and template are the GGUF's", text == binfile.read(out)[1])
    opens("more rows than tokens", *fact("vocab_size", 300), tensor("model.embed_tokens.weight", ones(300, 8)))
    opens("a rope parameter that is null", *fact("rope_scaling", {"type": "default", "partial_rotary_factor": None}))
    opens("a tied lm_head that is written out", tensor("lm_head.weight", ones(262, 8)))
    opens("frequencies that are written out", tensor("model.layers.0.self_attn.rotary_emb.inv_freq", ones(2)))
    opens("no generation_config.json", field("generation", None))
    out = opens("chat_template.jinja", part("tokenizer_config", "chat_template", None), field("jinja", CHATML.encode()))
    check("    is its template", text == binfile.read(out)[1])
    t = binfile.read(opens("a list of end tokens", part("generation", "eos_token_id", [258, 260])))[1]
    check("    they end a turn", t["eot"] == [258, 260], t["eot"])
    t = binfile.read(opens("the template's end of a turn", part("tokenizer_config", "eos_token", TOKENS[259])))[1]
    check("    ends a turn whatever eos says", t["eot"] == [259, 260], t["eot"])
    out = opens("Qwen3.5's words", part("tokenizer", "pre_tokenizer", MARKED), renamed("th", "q\u00cc"),
                part("tokenizer", "model.merges", ["q \u00cc"]))
    tokenized(out, "q\u0301", 256, 0x81)
    # Pieces: 259 a space, 260 t, 263 I, 264 th, 265 " I", 266 the, 267 " the", 268 two line ends
    out = opens("tokenizer.model", pieces)
    for text, *ids in [("the I", 267, 265), ("\n\nthe", 259, 268, 266), (" the", 259, 267), ("x", 259, 123)]:
        tokenized(out, text, *ids)
    out = opens("    with a token added to it", pieces, adds(str(len(PIECES) + 1), "<call>", True))
    t = binfile.read(out)[1]
    check("    is special", t["types"][-2:] == [binfile.UNUSED, binfile.SPECIAL] and t["tokens"][-1] == b"<call>")
    chats = []
    for scheme, begin, behind in ("always", 267, 267), ("first", 267, 266), ("never", 266, 266):
        out = opens(f"Metaspace, {scheme}", pieces_json(scheme))
        chats.append(steer("tokenize", out, "--chat", "the", "--quiet")[1].split())
        for text, *ids in [("the I", begin, 265), ("\n\nthe", 268, behind), (" the", 267)]:
            tokenized(out, text, *ids)
    # Five texts stand behind special tokens: a system prompt, a question, "assistant", and two line ends
    check("    in a chat", len(chats[0]) == len(chats[2]) + 5 and chats[1] == chats[2] and "267" not in chats[1],
          chats)
    out.unlink()
    shutil.rmtree(path)


def one_sentence(err):
    return err.startswith("export: ") and len(err.splitlines()) == 1 and "unforeseen" not in err


def steer(*args):
    done = subprocess.run([STEER, *args], capture_output=True)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def without_steer():
    """The exporter's own checks must do where ./steer is not built."""
    export.STEER = Path("/nowhere/steer")


def exported(what, path, *changes, small=None, how=()):
    """A Small or a SmallFolder, changed, must be exported without help of ./steer, open and generate."""
    small = small or Small()
    both(*changes)(small)
    small.write(path)
    out, status, said = run_export(path, *how, before=without_steer)
    if status == 0:
        status, said = steer("generate", out, "the", "--max-new", "4")
    check(what, status == 0, said if status else "")
    return out


def tokenized(out, text, *ids, how=()):
    got = steer("tokenize", out, *how, text, "--quiet")[1].split()
    check(f"    {text!r}", got == list(map(str, ids)), got)


def test_files(_):
    # What takes a second is computed once, before the forks
    for name in "unicode_classes", "pack_nfc":
        setattr(binfile, name, functools.cache(getattr(binfile, name)))
        getattr(binfile, name)()
    with tempfile.TemporaryDirectory() as tmp:
        test_folders(Path(tmp, "m"))
        test_refused(Path(tmp, "m.gguf"))
        test_tables(Path(tmp, "m.gguf"))
        test_exported(Path(tmp, "m.gguf"))
        test_outputs(Path(tmp, "m.gguf"))
        test_mutations(Path(tmp, "m.gguf"))
        test_checked(Path(tmp, "checked.json"))


def test_refused(path):
    for words, changes in REFUSED:
        for i, change in enumerate(changes):
            small = Small()
            change(small)
            small.write(path)
            out, status, err = run_export(path, before=without_steer)
            left = [p.name for p in path.parent.iterdir() if p != path]
            check(f"refused: {words} ({i + 1} of {len(changes)})",
                  status == 1 and words in err and one_sentence(err) and not left,
                  "" if words in err else f"{status} {err} {left or ''}")
            for p in left:
                Path(path.parent, p).unlink()
    Small().write(path)

    def few_pieces():
        export.MOST_PIECES = 500
    _, status, err = run_export(path, before=few_pieces)
    check("refused: many pieces of metadata", status == 1 and "pieces" in err and one_sentence(err), err)
    status, err = run_export(path.with_name("none.gguf"))[1:]
    check("refused: no file", status == 1 and "neither a file nor a folder" in err and one_sentence(err), err)
    status, err = run_export(path.parent)[1:]
    check("refused: a folder", status == 1 and "nor a folder with a config.json" in err and one_sentence(err), err)
    status, err = run_export("qwen", "--gguf", path, out=path.with_suffix(".bin"))[1:]
    check("refused: another model under a known name",
          status == 1 and "is not Qwen" in err and one_sentence(err), err)


def test_tables(path):
    """What no GGUF can say, because the exporter makes it: refused where the file is written."""
    Small().write(path)
    g = export.Gguf(path)
    config = export.read_config(g)
    tokenizer = export.read_tokenizer(g, config["vocab"])
    tensors = export.read_tensors(g, config)
    classes = tokenizer["unicode"]
    for words, change in [
            ("U+0020 in class 4", {"unicode": [r for r in classes if not r[0] <= 0x20 <= r[1]]}),
            ("U+0000 in class 0", {"unicode": [(0, 0, 4)] + classes}),
            ("wrong at U+0041", {"unicode": classes + [(0x41, 0x41, 1)]}),
            ("token 7 does not stand for the byte 6",
             {"byte_tokens": [0, 1, 2, 3, 4, 5, 7] + [binfile.NO_TOKEN] * 249}),
            ("merge 0 of tokens 1 and 2", {"merges": [(1, 2, 3)]}),
            ("merge 0 of tokens 116 and 104", {"types": [int(i == 256) for i in range(262)]}),
            ("token 400 is outside", {"refusal": [400]}),
            ("is named twice", {"refusal": [73, 73]}),
            ("9 tokens that end a turn", {"eot": [1] * 9}),
            ("string user_pre holds a zero byte", {"template": {"user_pre": "a\0"}})]:
        out = path.with_suffix(".bin")
        try:
            binfile.write(out, config, tokenizer | change, tensors, "bf16", "m")
            check(f"refused: {words}", False)
        except binfile.Refused as e:
            check(f"refused: {words}", words in str(e) and not out.exists(), e)


def test_exported(path):
    exported("a small model", path)
    other = path.with_suffix(".safetensors")
    path.rename(other)
    out, status, err = run_export(other)
    check("    under another name", status == 0 and not steer("info", out)[0], err)
    other.unlink()
    exported("Gemma 2's network", path, gemma)
    exported("Gemma 2's network without a window", path, gemma, *meta(".attention.sliding_window", "uint32", 0))
    exported("Qwen3's network", path, qwen3)
    exported("Gemma 3's network", path, gemma3)
    exported("    with a list of windows", path, gemma3, *meta(".attention.sliding_window_pattern", "array", [True]))
    exported("one number a block", path, *meta(".attention.head_count", "array", [4, 4]))
    exported("the longest context", path, *meta(".context_length", "uint32", 2**24))
    exported("no rope frequency in the file", path, drop(".rope.freq_base"))
    for title, base, note in [("Mistral 7B v0.1", 1e4, True), ("Mistral 7B v0.2", 1e6, False), ("small", 1e4, False)]:
        s = Small()
        both(*meta("general.name", "string", title), *meta(".rope.freq_base", "float32", base))(s)
        s.write(path)
        done = subprocess.run([sys.executable, export.__file__, path, "-o", path.with_suffix(".bin")],
                              capture_output=True, text=True)
        check(f"a window that may be missing, {title}", done.returncode == 0 and note ==
              ("note: a sliding window, which Mistral 7B v0.1 has" in done.stdout), done.stderr)
    g = export.Gguf(path)                         # small
    shape = dict(zip(("layers", "d", "kv_heads", "ff"), export.MISTRAL))
    check("    told by its shape", export.hides_window(g, shape, "zephyr") and
          not export.hides_window(g, shape | {"kv_heads": 32}, "zephyr"))
    exported("a name of control characters", path,
             *meta("general.name", "string", "a\n\x1b[2Jb\0" + "\u4e2d" * 40))
    exported("a byte without a token", path, put("text", 7, "the" * 2))
    exported("an unused token", path, put("types", 5, 5))
    out = exported("SentencePiece", path, sentencepiece)
    for text, *ids in [("the I", 266, 265), ("tht", 264, 260), ("x", 123), ("\n\n\n", 268, 3 + 10)]:
        tokenized(out, text, *ids)
    out = exported("SentencePiece, two spaces matched in texts", path, sentencepiece, put("text", 268, "\u2581\u2581"))
    for text, *ids in [("t  I", 260, 268, 263), ("t\u2581\u2581I", 260, 268, 263), ("t\u2581 I", 260, 268, 263)]:
        tokenized(out, text, *ids)
    out = exported("SentencePiece, a space before each text", path, sentencepiece,
                   *meta("tokenizer.ggml.add_space_prefix", "bool", True))
    for text, *ids in [("the I", 267, 265), ("tht", 259, 264, 260), ("x", 259, 123), ("\n\nthe", 268, 267)]:
        tokenized(out, text, *ids)
    for what, source, start in [
            ("a default that is not trimmed, as it stands", CHATML.replace("Be kind.", " Be kind. "),
             "<|im_start|>system\n Be kind. <|im_end|>\n"),
            ("{% generation %}", CHATML.replace("{{ '<|im_start|>' +", "{% generation %}{% endgeneration %}{{ '<|im_start|>' +"),
             "<|im_start|>system\n"),
            ("a date", "{{ strftime_now('%d %b %Y') }}" + CHATML, "26 Jul 2024<|im_start|>system\n")]:
        t = binfile.read(exported(what, path, template(source)))[1]
        p = t["template"]
        check("    is what the model file has", p["start"] + p["system_pre"] == start and t["trim"], p)
    out = exported("a system prompt inside a question", path, template(INSIDE))
    t = binfile.read(out)[1]
    p = t["template"]
    check("    its parts", p["start"] == "<|im_start|>" and p["system_pre"] == p["user_pre"] == "" and t["trim"] == 2
          and p["system_post"] == "\n" and p["assistant_post"] == "<|im_end|><|im_start|>", p)
    tokenized(out, "I ", 259, *b"x\nI :", how=("--system", "x", "--chat"))
    tokenized(out, "I ", 259, *b"I :", how=("--chat",))
    for what, source, how, always, wanted in [
            ("a system block in any case", ALWAYS, (), 1,
             {"start": "", "system_pre": "<|im_start|>system\nDay 7\n", "system_post": "<|im_end|>"}),
            ("    made bare", ALWAYS, ("--template", "bare"), 0, {"start": "", "system_pre": "", "system_post": ""}),
            ("a thought before an answer", THINKING, (), 0, {"answer_pre": "<|im_start|>assistant\n"}),
            ("    left out", THINKING, ("--no-thinking",), 0,
             {"assistant_pre": "<|im_start|>assistant\n", "answer_pre": "<|im_start|>assistant\n<think></think>"})]:
        t = binfile.read(exported(what, path, template(source), how=how))[1]
        check("    its parts", t["system_always"] == always and wanted.items() <= t["template"].items(), t["template"])
    out = exported("delimiters of the template that the file calls text", path, put("types", 259, 1),
                   put("types", 260, 1), put("types", 261, 1), drop("tokenizer.ggml.eos_token_id"))
    t = binfile.read(out)[1]
    check("    are special, another is not", t["types"][259:] == [1, 1, 0] and t["eot"] == [260], t["types"][259:])
    exported("Llama 3's rule", path, *meta("tokenizer.ggml.pre", "string", "llama-bpe"))
    for pre, *ids in ("qwen35", 256, 0x81), ("qwen2", ord("q"), 0xCC, 0x81):
        out = exported(f"a mark behind a letter, {pre}", path, *meta("tokenizer.ggml.pre", "string", pre),
                       put("text", 256, "q\u00cc"), field("merges", ["q \u00cc"]))
        tokenized(out, "q\u0301", *ids)
        check("    as info says", ("marks are letters" in steer("info", out)[1]) == (pre == "qwen35"))
    out = exported("a user-defined token", path, put("types", 258, 4), field("merges", MERGES[:2]))
    got = steer("tokenize", out, "xĠthe", "--quiet")[1].split()
    check("    is matched in a text", got == ["120", "258"], got)
    out = exported("no chat template", path, drop("tokenizer.chat_template"))
    ids = [ord(c) for c in "Hi!\n"]
    _, said = steer("tokenize", out, "--chat", "Hi!", "--quiet")
    check("    a prompt and a line's end", said.split() == list(map(str, ids)), said)
    exported("no chat template, but a token to begin with", path, drop("tokenizer.chat_template"),
             *meta("tokenizer.ggml.add_bos_token", "bool", True))
    _, said = steer("tokenize", out, "--chat", "Hi!", "--quiet")
    check("    it is there", said.split() == list(map(str, [259] + ids)), said)

    # A known model's site is at one of the template's positions
    small = Small()
    small.meta.pop("tokenizer.chat_template")
    small.write(path)

    def known(position):
        export.MODELS["small"] = ("Small", "small.bin", "", [], "", (1, 8), (0, position, 0.0))
    for position in -1, -2:
        out, status, err = run_export("small", "--gguf", path, out=path.with_suffix(".bin"),
                                      before=lambda: known(position))
        good = status == 0 if position == -1 else status == 1 and "no position -2" in err
        check(f"a known model's site at {position}", good, err)
        out.unlink(missing_ok=True)

    # Only the tokenizer of ./steer can count the tokens between a question and its answer: here 40
    # more, and 80 more than usual
    for words, fits in ("the" * 40, True), ("x" * 80, False):
        small = Small()
        small.template(CHATML.replace("<|im_end|>\n", "<|im_end|>\n" + words))
        small.write(path)
        what = f"{len(words)} bytes before an answer, "
        out, status, err = run_export(path)
        good = status == 0 if fits else status == 1 and "steer would not open the file" in err
        check(what + "with steer", good and out.exists() == fits, err)
        out.unlink(missing_ok=True)
        out, status, err = run_export(path, before=without_steer)
        check(what + "without", status == 1 and "build ./steer" in err and one_sentence(err), err)


def test_outputs(path):
    small, out, folder = Small(), path.with_suffix(".bin"), path.parent
    small.write(path)

    def unwritable(what, words, status=1, damaged=True, **more):
        """`damaged`: the GGUF is not even looked at before the output is found to be of no use."""
        if damaged:
            path.write_bytes(b"no GGUF")
        _, got, err = run_export(path, **more)
        check(what, got == status and words in err and one_sentence(err), err)
        if damaged:
            small.write(path)
    unwritable("output: a folder", "not a regular file", out=folder)
    unwritable("output: a device", "not a regular file", out=Path("/dev/null"))
    check("    still there", stat.S_ISCHR(os.stat("/dev/null").st_mode))
    unwritable("output: a file as a folder", str(path), out=path / "x" / "m.bin")
    unwritable("output: no such place", "/proc", out=Path("/proc/none/m.bin"))
    unwritable("output: a name too long", "too long", out=folder / ("m" * 250 + ".bin"))
    unwritable("output: the GGUF itself", "the GGUF itself", out=path)

    out.write_bytes(b"old")
    out.chmod(0o640)
    link = folder / "link.bin"
    link.symlink_to(out.name)
    unwritable("no room for it", "File too large", damaged=False, out=link,
               before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)))
    check("    the old file is as it was", out.read_bytes() == b"old")

    def full_stdout():
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    unwritable("standard output full", "standard output", damaged=False, before=full_stdout)
    check("    the old file is as it was", out.read_bytes() == b"old")

    def stopped(*args):
        os.kill(os.getpid(), signal.SIGTERM)

    def stop_soon():
        export.Gguf.tensor = stopped
    unwritable("stopped by a signal", "stopped by SIGTERM", damaged=False, before=stop_soon)
    check("    the old file is as it was", out.read_bytes() == b"old")

    for what, script, words in [("refuses", 'echo "steer: info: $2: no" >&2; exit 3', "open the file: no"),
                                ("crashes", "kill -SEGV $$", "ended with status -11")]:
        fake = folder / "fake"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o700)
        unwritable(f"steer {what}", words, damaged=False, before=lambda: setattr(export, "STEER", fake))
        fake.unlink()
    check("    the old file is as it was", out.read_bytes() == b"old")
    _, status, err = run_export(path, out=link)
    check("a link stays a link, a mode a mode", status == 0 and link.is_symlink() and
          not steer("info", out)[0] and stat.S_IMODE(out.stat().st_mode) == 0o640, err)
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, export.__file__, path,
                           "-o", out], capture_output=True, text=True)
    check("standard output closed", done.returncode == 0 and not done.stderr, done.stderr)
    terminal, inside = pty.openpty()
    run_export(path, out=out, before=lambda: os.dup2(inside, 2))
    said = os.read(terminal, 1 << 16)
    check("progress on a terminal", re.search(rb"\d of \d+ MB", said), said)
    os.close(terminal)
    os.close(inside)
    check("nothing else is left", {p.name for p in folder.iterdir()} == {"m.gguf", "m.bin", "link.bin"})
    link.unlink()
    out.unlink()


def mutate(raw, begin, rng):
    """A copy with one to three faults, most of them before `begin`, where the tensors are."""
    raw = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(begin if rng.random() < 0.9 else len(raw))
        kind = rng.randrange(6)
        if kind == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            raw[at] = rng.randrange(256)
        elif kind == 2:
            n = rng.choice([1, 4, 8])
            value = rng.choice([0, 1, 2**(8 * n) - 1, 2**(8 * n - 1), 10**9 % 2**(8 * n)])
            raw[at:at + n] = value.to_bytes(n, "little")
        elif kind == 3:
            raw[at:at + 4] = struct.pack("<f", rng.choice([NAN, INF, -INF, 0.0, -1.0, 3.4e38, 1e-45]))
        elif kind == 4:
            other, n = rng.randrange(len(raw)), rng.randint(1, 64)
            raw[at:at + n] = raw[other:other + n]            # may move what is behind it
        else:
            del raw[rng.choice([at, len(raw) - rng.randint(1, 100)]):][:1]
    return bytes(raw)


def test_mutations(path):
    valid = []                                               # (file, where its tensors begin)
    for change in gemma, lambda s: None:
        small = Small()
        change(small)
        small.write(path)
        raw = path.read_bytes()
        valid.append((raw, len(raw) - sum(max(a.nbytes, 32) for a in small.tensors.values())))
    good, bad, slowest, reasons = 0, 0, 0.0, set()
    for seed in range(MUTATIONS):
        path.write_bytes(mutate(*valid[seed % 2], random.Random(seed)))
        start = time.monotonic()
        out, status, err = run_export(path, before=without_steer)
        slowest = max(slowest, time.monotonic() - start)
        left = {p.name for p in path.parent.iterdir()} - {"m.gguf"}
        if status == 0:
            fine = left == {"m.bin"} and not err and not steer("info", out)[0]
        else:
            fine = status == 1 and one_sentence(err) and not left
        good += fine and status == 0
        bad += not fine
        reasons.add(err[:40])
        if not fine:
            print(f"FAIL  mutation {seed}: status {status}, {sorted(left)}\n{err}\n{steer('info', out)[1]}")
        for name in left:
            Path(path.parent, name).unlink()
    check(f"{MUTATIONS} mutations", bad == 0 and good > 0, f"{good} exported, {len(reasons)} different ends, "
          f"{slowest:.1f} s at most")


def test_checked(path):
    """The report of what was checked, and results.py's table of it."""
    def rows():
        return {line.split(" | ")[0][2:]: line for line in results.checked_models().splitlines() if line[:1] == "|"}
    reports, results.REPORTS = results.REPORTS, path.parent
    try:
        for want in [[1], [2]], [[1], [3]]:       # the later one counts
            same = compare("Llama 3, two texts", ["a", "b"], [[1], [3]], want, kind="tokens", reference="tokenizers",
                           form="tokenizer.json", show=0)
            checked.add(kind="chats", reference="Jinja", template="its own", systems=0, equal=3, of=4)
            checked.keep(path, "tokens llama3")
            count = "2" if same else "1 of 2"
            check(f"a report's table, {count} equal", rows()["Llama 3, 3.1, 3.2"] == (
                f"| Llama 3, 3.1, 3.2 | not run | - | {count}, tokenizers (tokenizer.json); llama.cpp's own not run | "
                "its own: 3 of 4, none with a system prompt |"), rows()["Llama 3, 3.1, 3.2"])
        for n, length in (2, 20), (1, 70):
            checked.add(texts=n, length=length, largest=length / 1e6, equal=n * length, of=n * length)
            checked.keep(path, f"logits Gemma 3 270M, {n} of {length}")
        for name in "mistral", "mistral with a window":
            checked.add(network=name, form="folder", largest=1e-5, texts=2, length=100)
        checked.keep(None, "networks")
        check("    nothing kept", "| not run | - |" in rows()["Mistral 7B v0.1 to v0.3"] and not checked.figures)
        for form in "folder", "GGUF":
            checked.add(network="mistral", form=form, largest=1e-5, texts=2, length=100)
        checked.add(network="mistral with a window", form="folder", largest=2.5e-5, texts=2, length=100)
        checked.keep(path, "networks")
        check("    networks", "| 2.5e-5; mistral with a window: folder only | - | mistral not run; mistral-v1 not run;"
              in rows()["Mistral 7B v0.1 to v0.3"], rows()["Mistral 7B v0.1 to v0.3"])
        check("    real weights", "| 7.0e-5 in 1 x 70 and 2 x 20 tokens of Gemma 3 270M; likeliest token equal at 110 "
              "positions |" in rows()["Gemma 3 (text)"], rows()["Gemma 3 (text)"])
        entry = json.loads(path.read_text())["networks"]
        check("    says what ran", entry["program"] and re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
              and entry["command"].startswith("tools/test_export.py"), entry)
    finally:
        results.REPORTS = reports


# ---- networks -----------------------------------------------------------------------------------

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


GEMMA3_ROPE = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
               "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}


def write_gguf(path, arch, model, template, pre="smollm", extra=(), quantise=None, drop=()):
    """A model as llama.cpp's convert_hf_to_gguf.py lays it out."""
    c, w = model.config, gguf.GGUFWriter(path, arch)
    dh = c.head_dim
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(dh)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    w.add_rope_freq_base(rope["rope_theta"])
    if arch == "gemma3":
        w.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
        w.add_sliding_window(c.sliding_window)
    for key, value in dict(extra).items():
        w.add_string(key, value) if isinstance(value, str) else w.add_float32(key, value)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(TOKENS)
    w.add_token_types(TYPES)
    w.add_token_merges(MERGES)
    w.add_bos_token_id(259)
    w.add_eos_token_id(260)
    w.add_chat_template(template)
    names = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
             "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
             "self_attn.k_norm": "attn_k_norm"}
    if arch in ("gemma2", "gemma3"):
        names |= {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                  "post_feedforward_layernorm": "post_ffw_norm"}
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        a = p.numpy()
        stem, kind = name.rsplit(".", 1)
        block = ""
        if stem.startswith("model.layers."):
            block, stem = stem.removeprefix("model.layers.").split(".", 1)
            block = f"blk.{block}."
        there = f"{block}{names[stem]}.{kind}"
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            n = c.num_attention_heads if "q_proj" in name else c.num_key_value_heads
            a = a.reshape(n, 2, a.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(a.shape)
        if arch.startswith("gemma") and "norm" in name:
            a = a + 1
        if there in drop:
            continue
        if quantise and a.ndim == 2:
            a = gguf.quants.quantize(np.ascontiguousarray(a), quantise)
            w.add_tensor(there, a, raw_dtype=quantise)
        else:
            w.add_tensor(there, np.ascontiguousarray(a))
    if rope["rope_type"] == "llama3":
        plain = 5e5 ** (-np.arange(0, dh, 2) / dh)
        factors = plain / model.model.rotary_emb.inv_freq.numpy()
        w.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    finish(w)


def tiny(family, seed=0, **more):
    options = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=32, vocab_size=262, max_position_embeddings=512,
                   attn_implementation="eager", bos_token_id=None, eos_token_id=None,
                   pad_token_id=None) | more
    import torch
    import transformers as tf
    torch.manual_seed(seed)
    config = getattr(tf, family + ("TextConfig" if family == "Gemma3" else "Config"))(**options)
    model = getattr(tf, family + "ForCausalLM")(config).eval()
    for p in model.parameters():                             # biases and norms begin as 0 or 1
        p.data += torch.randn_like(p) * 0.2
    return model


def write_folder(path, model, template, dtype="float32", shards="5GB", config=None):
    """A model as transformers saves it, with the tokenizer of the GGUFs above."""
    import torch
    model.to(getattr(torch, dtype)).save_pretrained(path, max_shard_size=shards)
    model.to(torch.float32)
    if config:
        where = path / "config.json"
        where.write_text(json.dumps(json.loads(where.read_text()) | config))
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (path / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": TOKENS[259], "eos_token": {"content": TOKENS[260]}, "chat_template": template}))


def steer_logits(out, ids, vocab):
    """[texts, positions, vocab] of ./steer's library."""
    with tempfile.TemporaryDirectory() as tmp:
        lines = "".join(" ".join(map(str, row)) + "\n" for row in ids.tolist())
        subprocess.run([export.ROOT / "tests/probe", "logits", out, Path(tmp, "raw")], input=lines, text=True,
                       check=True)
        return np.fromfile(Path(tmp, "raw"), np.float32).reshape(*ids.shape, vocab)


def test_networks(report):
    import torch
    import transformers
    transformers.utils.logging.disable_progress_bar()
    subprocess.run(["make", "-s", "tests/probe"], check=True, cwd=export.ROOT)
    tied = dict(tie_word_embeddings=True)
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    window = dict(sliding_window=16) | tied
    gemma3 = window | dict(num_hidden_layers=7)   # six a period
    # name: model, template, what its GGUF says beside, what else its config.json says
    models = {
        "llama": ("llama", tiny("Llama", tie_word_embeddings=False), CHATML, {}, {}),
        "llama with llama3 rope scaling": (
            "llama", tiny("Llama", rope_parameters=LLAMA3, **tied), CHATML, {}, {}),
        "llama with linear rope scaling": (
            "llama", tiny("Llama", rope_parameters=linear, **tied), CHATML,
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {}),
        "llama, as transformers 4 wrote it": (
            "llama", tiny("Llama", rope_parameters=LLAMA3, **tied), CHATML, {},
            {"rope_parameters": None, "rope_theta": 5e5,
             "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}),
        "llama with biases": ("llama", tiny("Qwen2", **tied), CHATML, {}, {}),
        "llama with heads apart from d": ("llama", tiny("Llama", head_dim=24, **tied), CHATML, {}, {}),
        "mistral": ("llama", tiny("Mistral", sliding_window=None, tie_word_embeddings=False), CHATML, {}, {}),
        "mistral with a window": (None, tiny("Mistral", **window), CHATML, {}, {}),
        "qwen2": ("qwen2", tiny("Qwen2", tie_word_embeddings=False), CHATML, {}, {}),
        "gemma": ("gemma", tiny("Gemma", **tied), GEMMA, {}, {}),
        "gemma2": ("gemma2", tiny("Gemma2", query_pre_attn_scalar=32, **window), GEMMA, {}, {}),
        "qwen3": ("qwen3", tiny("Qwen3", head_dim=48, tie_word_embeddings=False), CHATML, {}, {}),
        "gemma3": ("gemma3", tiny("Gemma3", query_pre_attn_scalar=32, rope_parameters=GEMMA3_ROPE, **gemma3), GEMMA,
                   {"gemma3.rope.freq_base_swa": 100.0, "gemma3.rope.scaling.type": "linear",
                    "gemma3.rope.scaling.factor": 8.0}, {}),
        "gemma3, as transformers 4 wrote it": (
            "gemma3", tiny("Gemma3", query_pre_attn_scalar=32, rope_parameters=GEMMA3_ROPE, **gemma3), GEMMA,
            {"gemma3.rope.freq_base_swa": 100.0, "gemma3.rope.scaling.type": "linear",
             "gemma3.rope.scaling.factor": 8.0},
            {"rope_parameters": None, "rope_theta": 1e6, "rope_local_base_freq": 100.0, "layer_types": None,
             "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        "gemma2 with a query scale": ("gemma2", tiny("Gemma2", query_pre_attn_scalar=20, **window), GEMMA,
                                      {"gemma2.attention.scale": 20 ** -0.5}, {}),
    }
    ids = torch.randint(0, 262, (2, 100), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as tmp, torch.no_grad():
        for name, (arch, model, template, extra, config) in models.items():
            want = model(ids).logits.numpy()
            folder_path = Path(tmp, name)
            write_folder(folder_path, model, template, config=config)
            path = Path(tmp, "m.gguf")
            if arch:
                write_gguf(path, arch, model, template, extra=extra)
            outs = []
            for where, there in ("GGUF", path if arch else None), ("folder", folder_path):
                if not there:
                    continue
                out, status, err = run_export(there, "--dtype", "f32", out=Path(tmp, f"{where}.bin"))
                if status:
                    check(f"{name}, {where}", False, err)
                    continue
                worst = float(np.abs(steer_logits(out, ids, 262) - want).max())
                check(f"{name}, {where}", worst < 1e-4, f"logits differ by {worst:.1e}")
                checked.add(network=name, form=where, largest=worst, texts=len(ids), length=len(ids[0]))
                t = binfile.read(out)[1]
                p = t["template"]
                begins = ("", "Be kind.") if template == CHATML else ("<|im_start|>", "")
                check("    template", t["trim"] == 1 and (p["start"], p["system"]) == begins)
                outs.append(t)
            check("    the same tokenizer", all(t == outs[0] for t in outs[1:]))
            t = outs[0]
        checked.keep(report, "networks")
        check("tokenizer", t["tokens"][258] == b" the" and t["tokens"][261] == b""
              and t["types"][258:] == [0, 1, 1, 2] and t["byte_tokens"] == list(range(256))
              and t["merges"] == [(116, 104, 256), (256, 101, 257), (32, 257, 258)])

        arch, model, template, *_ = models["llama"]
        path, weight = Path(tmp, "m.gguf"), model.state_dict()["model.layers.1.mlp.up_proj.weight"]
        for q in ("F16", "BF16", "Q8_0", "Q4_0", "Q5_1"):
            kind = gguf.GGMLQuantizationType[q]
            write_gguf(path, arch, model, template, quantise=kind)
            out, status, err = run_export(path, "--dtype", "f32")
            want = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)
            good = not status and np.array_equal(binfile.read(out)[2]["w_up.1"], want)
            check(f"tensor type {q}", good, err)
        for dtype in "float16", "bfloat16", "float32":
            folder_path = Path(tmp, dtype)
            write_folder(folder_path, model, template, dtype, shards="100KB")
            weight = model.state_dict()["model.layers.1.mlp.up_proj.weight"]       # rounded for good
            parts = len(list(folder_path.glob("*.safetensors")))
            for kind in "f32", "bf16", "q8":
                out, status, err = run_export(folder_path, "--dtype", kind, out=Path(tmp, "m.bin"), before=few_rows)
                want = binfile.encode(weight.numpy(), binfile.DTYPES[kind])
                good = not status and parts > 2 and want in out.read_bytes()
                check(f"{dtype} in {parts} parts to {kind}, a few rows at a time", good, err)

        names = {"bos_token": TOKENS[259], "eos_token": TOKENS[260], "tokenizer_class": "PreTrainedTokenizerFast"}
        (folder_path / "tokenizer_config.json").write_text(json.dumps(names | {"chat_template": CHATML}))
        done = subprocess.run([sys.executable, export.__file__, folder_path, "-o", Path(tmp, "m.bin"), "--dtype", "f32",
                               "--verify"], capture_output=True, text=True)
        found = re.search(r"3 of 3 texts .* also as a chat\n.* by at most (\S+) .* same at (\d+) of (\d+) positions",
                          done.stdout)
        check("--verify", found and float(found[1]) < 1e-4 and found[2] == found[3], found[0] if found else
              done.stdout + done.stderr)

    # The section of NFC tables, applied by the standard's own algorithm, against the tokenizers
    # library's
    check_nfc()


def few_rows():
    binfile.BLOCK_BYTES = 1000


def check_nfc():
    from unicodedata import combining

    from tokenizers import normalizers

    import parity
    normalize = normalizers.NFC().normalize_str
    raw = binfile.pack_nfc()
    n = struct.unpack_from("<4I", raw)
    rows = np.frombuffer(raw, np.uint32, offset=16).reshape(-1, 3).tolist()
    ccc = {c: k for a, b, k in rows[:n[0]] for c in range(a, b + 1)}
    decomp = {c: (a, b) for c, a, b in rows[n[0]:n[0] + n[1]]}
    comp = {(a, b): c for a, b, c in rows[n[0] + n[1]:]}

    def split(c):
        if 0xAC00 <= c < 0xD7A4:                             # Hangul syllables, by arithmetic
            s = c - 0xAC00
            return [0x1100 + s // 588, 0x1161 + s % 588 // 28] + ([0x11A7 + s % 28] if s % 28 else [])
        if c not in decomp:
            return [c]
        a, b = decomp[c]
        return split(a) + (split(b) if b else [])

    def pair(a, b):
        if 0x1100 <= a < 0x1113 and 0x1161 <= b < 0x1176:
            return 0xAC00 + ((a - 0x1100) * 21 + b - 0x1161) * 28
        if 0xAC00 <= a < 0xD7A4 and (a - 0xAC00) % 28 == 0 and 0x11A8 <= b < 0x11C3:
            return a + b - 0x11A7
        return comp.get((a, b))

    def nfc(s):
        cs = [x for ch in s for x in split(ord(ch))]
        at = 0
        while at < len(cs):                                  # marks in canonical order
            end = at
            while end < len(cs) and ccc.get(cs[end], 0):
                end += 1
            cs[at:end] = sorted(cs[at:end], key=lambda c: ccc[c])
            at = end + 1
        out, starter, last = [], None, 0
        for c in cs:
            k = ccc.get(c, 0)
            near = starter is not None and (last < k or last == 0 == len(out) - 1 - starter)
            whole = pair(out[starter], c) if near else None
            if whole:
                out[starter] = whole
                continue
            if k == 0:
                starter = len(out)
            last = k
            out.append(c)
        return "".join(map(chr, out))
    marks = [chr(c) for c in range(0x110000) if combining(chr(c))]
    todo = [f"e{a}{b}" for a in marks for b in "\u0301\u0323\u0334\u0345"] + parity.strings(10000)
    todo += [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    bad = sum(nfc(s) != normalize(s) for s in todo)
    check("NFC tables", bad == 0, f"{bad} of {len(todo)} strings differ, {len(raw)} bytes")


def main():
    parts = {"files": test_files, "networks": test_networks}
    ap = argparse.ArgumentParser(description="export.py, checked")
    ap.add_argument("parts", nargs="*", help=" and ".join(parts))
    ap.add_argument("--report", metavar="FILE", help="keep the networks' errors there, as JSON")
    args = ap.parse_args()
    if not set(args.parts) <= set(parts):
        ap.error(f"the parts are {' and '.join(parts)}")
    if not os.access(STEER, os.X_OK):
        sys.exit("test_export: ./steer opens what is exported: build it first (make)")
    for name in args.parts or parts:
        parts[name](args.report)
    print(f"{passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
