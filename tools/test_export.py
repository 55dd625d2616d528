"""Check export.py without a network: tiny random models written as llama.cpp's converter writes
them, exported, and run in transformers beside the originals; and files that must be refused.

    python3 tools/test_export.py
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers as tf

import binfile
import export
import parity

CHATML = ("{% for m in messages %}{% if loop.first and m.role != 'system' %}"
          "<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}{{ '<|im_start|>' + m.role + '\n' "
          "+ m.content | trim + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
GEMMA = ("{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
         "{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
         "{{ m.content | trim }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}")
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


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
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    if arch == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
        w.add_sliding_window(c.sliding_window)
    for key, value in dict(extra).items():
        w.add_string(key, value) if isinstance(value, str) else w.add_float32(key, value)
    char = {b: ch for ch, b in export.gpt2_bytes().items()}
    text = [char[b] for b in range(256)] + ["th", "the", "Ġthe", "<|im_start|>", "<|im_end|>", "<pad>"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(text)
    w.add_token_types([1] * 259 + [3, 3, 5])
    w.add_token_merges(["t h", "th e", "Ġ the"])
    w.add_bos_token_id(259)
    w.add_eos_token_id(260)
    w.add_chat_template(template)
    names = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
             "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    if arch == "gemma2":
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
        if arch == "gemma2" and "norm" in name:
            a = a + 1
        if there in drop:
            continue
        if quantise and a.ndim == 2:
            a = gguf.quants.quantize(np.ascontiguousarray(a), quantise)
            w.add_tensor(there, a, raw_dtype=quantise)
        else:
            w.add_tensor(there, np.ascontiguousarray(a))
    if c.rope_parameters["rope_type"] == "llama3":
        plain = 5e5 ** (-np.arange(0, dh, 2) / dh)
        factors = plain / model.model.rotary_emb.inv_freq.numpy()
        w.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tiny(family, seed=0, **more):
    options = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=32, vocab_size=262, max_position_embeddings=512,
                   attn_implementation="eager", bos_token_id=None, eos_token_id=None,
                   pad_token_id=None) | more
    torch.manual_seed(seed)
    model = getattr(tf, family + "ForCausalLM")(getattr(tf, family + "Config")(**options)).eval()
    for p in model.parameters():                             # biases and norms begin as 0 or 1
        p.data += torch.randn_like(p) * 0.2
    return model


def run_export(path, *more):
    out = path.with_suffix(".bin")
    done = subprocess.run([sys.executable, Path(__file__).with_name("export.py"), path, "-o", out, *more],
                          capture_output=True, text=True)
    return out, done.returncode, done.stderr.strip()


def main():
    failed = 0

    def check(what, good, figure=""):
        nonlocal failed
        failed += not good
        print(f"{'ok   ' if good else 'FAIL '} {what} {figure}")
    base = dict(tie_word_embeddings=True)
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    caps = dict(sliding_window=16) | base
    models = {
        "llama": ("llama", tiny("Llama", tie_word_embeddings=False), CHATML, {}),
        "llama with llama3 rope scaling": (
            "llama", tiny("Llama", rope_parameters=LLAMA3, **base), CHATML, {}),
        "llama with linear rope scaling": (
            "llama", tiny("Llama", rope_parameters=linear, **base), CHATML,
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
        "llama with biases": ("llama", tiny("Qwen2", **base), CHATML, {}),
        "qwen2": ("qwen2", tiny("Qwen2", tie_word_embeddings=False), CHATML, {}),
        "gemma2": ("gemma2", tiny("Gemma2", query_pre_attn_scalar=32, **caps), GEMMA, {}),
        "gemma2 with a query scale": ("gemma2", tiny("Gemma2", query_pre_attn_scalar=20, **caps), GEMMA,
                                      {"gemma2.attention.scale": 20 ** -0.5}),
    }
    ids = torch.randint(0, 262, (2, 100), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as tmp, torch.no_grad():
        path = Path(tmp, "m.gguf")
        for name, (arch, model, template, extra) in models.items():
            write_gguf(path, arch, model, template, extra=extra)
            out, status, err = run_export(path, "--dtype", "f32")
            if status:
                check(name, False, err)
                continue
            config, t, tensors, _, _ = binfile.read(out)
            ours = parity.reference_model(config, tensors)(ids).logits
            worst = float((ours - model(ids).logits).abs().max())
            check(name, worst < 1e-4, f"logits differ by {worst:.1e}")
            p = t["template"]
            want = ("", "Be kind.") if template == CHATML else ("<|im_start|>", "")
            check("    template", t["trim"] == 1 and (p["start"], p["system"]) == want)
        check("    tokenizer", t["tokens"][258] == b" the" and t["tokens"][261] == b""
              and t["types"][258:] == [0, 1, 1, 2] and t["byte_tokens"] == list(range(256))
              and t["merges"] == [(116, 104, 256), (256, 101, 257), (32, 257, 258)])

        arch, model, template, _ = models["llama"]
        for q in ("F16", "BF16", "Q8_0", "Q4_0", "Q5_1"):
            kind = gguf.GGMLQuantizationType[q]
            write_gguf(path, arch, model, template, quantise=kind)
            out, status, err = run_export(path, "--dtype", "f32")
            a = model.state_dict()["model.layers.1.mlp.up_proj.weight"].numpy()
            want = gguf.quants.dequantize(gguf.quants.quantize(a, kind), kind)
            good = not status and np.array_equal(binfile.read(out)[2]["w_up.1"], want)
            check(f"tensor type {q}", good, err)

        def refused(what, words, arch="llama", model=model, template=CHATML, **more):
            write_gguf(path, arch, model, template, **more)
            out, status, err = run_export(path)
            check(f"refused: {what}", status == 1 and words in err and len(err.splitlines()) == 1, err)
        refused("architecture", "gemma3", arch="gemma3")
        refused("yarn", "yarn", extra={"llama.rope.scaling.type": "yarn"})
        refused("unknown metadata", "llama.logit_scale", extra={"llama.logit_scale": 2.0})
        refused("missing tensor", "blk.1.ffn_up.weight", drop=["blk.1.ffn_up.weight"])
        refused("unknown tensor", "blk.0.attn_k.bias", model=tiny("Qwen2"), drop=["blk.0.attn_q.bias"])
        refused("pre-tokenizer", "llama-bpe", pre="llama-bpe")
        refused("template that counts turns", "cut", template="{{ messages | length }}" + CHATML)
        refused("broken template", "Jinja", template="{% for %}")
        path.write_bytes(path.read_bytes()[:5000])
        out, status, err = run_export(path)
        check("refused: truncated file", status == 1 and len(err.splitlines()) == 1, err)
        out, status, err = run_export(Path(tmp, "none.gguf"))
        check("refused: no file", status == 1 and len(err.splitlines()) == 1, err)
        check("nothing half-written", not [f for f in os.listdir(tmp) if f.endswith(".part")])

    # The section of NFC tables, applied by the standard's own algorithm, against the tokenizers
    # library's
    failed += not check_nfc(check)
    print(f"{failed} failed")
    return failed


def check_nfc(check):
    import struct
    from unicodedata import combining

    from tokenizers import normalizers
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
    return bad == 0


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
