"""What the paper's two models cost: random weights in their shapes, with their real tokenizers.

    python3 tools/paper_sizes.py gemma2-2b llama3.2-3b      one after the other, with time and memory of each step

Each is written as a Hugging Face folder of bf16 safetensors (5 and 6 GB), exported, and run: a vector by
difference in means, a frozen generation of 64 tokens, the scores of every edge on one text of 200 tokens.
Nothing of it is kept without --keep. The weights are noise: only time, memory and what must not fail are
looked at here. --report FILE keeps the figures; weights/reports/sizes.json is what results.py makes the table
of weights/RESULTS.md of. Tokenizers and templates are fetched as by tokenizer_parity.py. Needs numpy, gguf, jinja2
and npm.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import binfile
import export
import folder
import parity
import tokenizer_parity

# name: (title, tokenizer, template, bos, eos, the paper's site, config.json)
MODELS = {
    "gemma2-2b": ("Gemma 2 2B", "gemma2", "google-gemma-2-2b-it.jinja", "<bos>", "<eos>", "15,-1", dict(
        model_type="gemma2", architectures=["Gemma2ForCausalLM"], hidden_size=2304, intermediate_size=9216,
        num_hidden_layers=26, num_attention_heads=8, num_key_value_heads=4, head_dim=256, vocab_size=256000,
        max_position_embeddings=8192, sliding_window=4096, query_pre_attn_scalar=256, attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0, rms_norm_eps=1e-6, rope_theta=1e4, hidden_activation="gelu_pytorch_tanh",
        eos_token_id=[1, 107], tie_word_embeddings=True)),
    "llama3.2-3b": ("Llama 3.2 3B", "llama3", "meta-llama-Llama-3.2-3B-Instruct.jinja", "<|begin_of_text|>",
                    "<|eot_id|>", "12,-4", dict(
        model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=3072, intermediate_size=8192,
        num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8, head_dim=128, vocab_size=128256,
        max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=5e5, hidden_act="silu",
        rope_scaling=dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=8192),
        eos_token_id=[128001, 128008, 128009], tie_word_embeddings=True)),
}
PROMPT = "How do I bake a cake?"
LENGTHS = "128", "1024", "4096"                # of runs whose memory is told
SHARD = 2 << 30                               # bytes of a safetensors file


def shapes(config):
    """[(name, shape)] of the folder's tensors, in Hugging Face's names."""
    source = folder.Folder.__new__(folder.Folder)
    source.arch, source.facts = config["model_type"], config
    c = source.config()
    names = folder.NAMES_POST if c["post_norms"] else folder.NAMES
    for _, layer, name, shape in binfile.tensor_list(c):
        kind = name.split(".")[0]
        if kind in folder.GLOBAL_NAMES:
            yield f"model.{folder.GLOBAL_NAMES[kind]}", shape
        elif not kind.startswith("rope_"):
            yield f"model.layers.{layer}.{names[kind]}", shape


def write_random(name, out):
    """A folder of random weights, their spread that of an untrained model."""
    _, tokenizer, template, bos, eos, _, config = MODELS[name]
    out.mkdir(parents=True)
    for file in "tokenizer.json", "tokenizer_config.json":
        shutil.copy(tokenizer_parity.fetched(tokenizer) / file, out / file)
    known = json.loads((out / "tokenizer_config.json").read_text())
    (out / "tokenizer_config.json").write_text(json.dumps(known | {"bos_token": bos, "eos_token": eos}))
    shutil.copy(tokenizer_parity.llama_cpp() / "templates" / template, out / "chat_template.jinja")
    (out / "config.json").write_text(json.dumps(config))
    rng, parts, size = np.random.Generator(np.random.SFC64(0)), [{}], 0
    for tensor, shape in shapes(config):
        n = binfile.nbytes(shape, binfile.BF16)
        if size + n > SHARD and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, size + n]}
        size += n
    where = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        head = json.dumps(part).encode()
        with open(out / file, "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head)
            for tensor, t in part.items():
                where[tensor], shape = file, t["shape"]
                if len(shape) == 1:                       # Gemma's gains are 1 + w
                    w = np.full(shape, 0.0 if config["model_type"] == "gemma2" else 1.0, np.float32)
                    f.write(binfile.encode(w, binfile.BF16))
                    continue
                for first in range(0, shape[0], 4096):
                    w = rng.standard_normal((min(4096, shape[0] - first), shape[1]), np.float32) * np.float32(0.02)
                    if "embed" in tensor:                 # no answer ends
                        w[[i - first for i in config["eos_token_id"] if first <= i < first + len(w)]] = 0
                    f.write(binfile.encode(w, binfile.BF16))
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def edges(c, layer):
    """Of the graph from block `layer` on: a node for the residual stream, each head, each MLP; they send to the
    queries of each head, its keys and values, to the MLPs and to the logits."""
    blocks, heads, count = c["num_hidden_layers"] - layer, c["num_attention_heads"], 0
    for block in range(blocks):
        before = 1 + block * (heads + 1)
        count += (heads + 2 * c["num_key_value_heads"]) * before + before + heads
    return count + 1 + blocks * (heads + 1)


def measured(rows, what, command, lines=""):
    """Run it: what it printed. Its time and the most memory that it held go to the screen and to the rows."""
    with tempfile.TemporaryFile() as ask, tempfile.TemporaryFile() as told:
        ask.write(lines.encode())
        ask.seek(0)
        begun = time.monotonic()
        child = os.posix_spawnp(command[0], [str(a) for a in command], os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, ask.fileno(), 0), (os.POSIX_SPAWN_DUP2, told.fileno(), 1)])
        _, status, used = os.wait4(child, 0)
        if status:
            sys.exit(f"paper_sizes: {' '.join(map(str, command))}: status {os.waitstatus_to_exitcode(status)}")
        rows.append([what, f"{time.monotonic() - begun:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processors, "
                           f"{used.ru_maxrss / 2**20:.2f} GB"])
        print(f"   {what}: {rows[-1][1]} resident at most", flush=True)
        told.seek(0)
        return told.read().decode()


def run(name, args):
    """What results.py makes a column of: {"title": ..., "rows": [[what, figures]]}."""
    print(f"{name}, {args.dtype}", flush=True)
    where = Path(args.folder) / name
    kinds = "bin", "vec", "raw", "txt", "jsonl"
    source, (model, vector, raw, question, answer) = where, (where.with_name(f"{name}.{kind}") for kind in kinds)
    title, site, config = MODELS[name][0], *MODELS[name][-2:]
    layer, position = map(int, site.split(","))
    rows = []
    try:
        if not source.exists():
            write_random(name, source)
        measured(rows, "export", [sys.executable, export.__file__, source, "--template", "bare", "--dtype", args.dtype,
                            "-o", model])
        rows.insert(0, ["folder, model file", f"{sum(f.stat().st_size for f in source.iterdir()) / 1e9:.2f}, "
                                              f"{model.stat().st_size / 1e9:.2f} GB"])
        if not args.keep:
            shutil.rmtree(source)
        said = subprocess.run([export.STEER, "info", model], capture_output=True, text=True, check=True).stdout
        print(said, end="")
        measured(rows, f"vector by difference in means, {args.prompts} + {args.prompts} prompts",
                 [export.STEER, "vector", model, "--out", vector, "--site", site, "--coeff", "1", "--train",
                  args.prompts, "--data", export.ROOT / "weights"])
        question.write_text(PROMPT + "\n")
        measured(rows, "64 tokens with frozen values", [
            export.STEER, "generate", model, "--prompts", question, "--jsonl", answer, "--vector", vector,
            "--freeze", "v", "--max-new", 64, "--quiet"])
        print(f"   {len(json.loads(answer.read_text())['ids'])} tokens came")
        prompt = subprocess.run([export.STEER, "tokenize", model, "--chat", PROMPT, "--quiet"], capture_output=True,
                                text=True, check=True).stdout.split()
        text = prompt + [str(1000 + 7 * i) for i in range(200 - len(prompt))]
        measured(rows, "scores of every edge of one text of 200 tokens, 10 steps", [
            parity.probe(), "scores", model, vector, len(prompt), raw], " ".join(text) + "\n")
        got = np.fromfile(raw, np.float64, 3)
        print(f"   {int(got[0])} positions of interest, total effect {got[1]:.3f}, estimated {got[2]:.3f}", flush=True)
        rows.append(["its edges", f"{edges(config, layer):,}"])
        memory = dict(re.findall(r"a run of +(\d+) tokens: ([\d.]+) MB", said))
        rows.append([f"memory of a run of {', '.join(LENGTHS)} tokens beside the file",
                     ", ".join(f"{float(memory[n]):.0f}" for n in LENGTHS) + " MB"])
        return {"title": f"{title} (block {layer}, position {position})", "rows": rows}
    finally:
        for path in (raw, question, answer) if args.keep else (model, vector, raw, question, answer):
            path.unlink(missing_ok=True)
        if not args.keep:
            shutil.rmtree(source, ignore_errors=True)


def main():
    ap = argparse.ArgumentParser(description="time and memory of models in the paper's sizes, with random weights")
    ap.add_argument("names", nargs="+", choices=list(MODELS))
    ap.add_argument("--dtype", choices=list(binfile.DTYPES), default="bf16")
    ap.add_argument("--prompts", type=int, default=32, help="a side, for the vector")
    ap.add_argument("--folder", default=export.CACHE, help="where 12 GB have room")
    ap.add_argument("--keep", action="store_true")
    ap.add_argument("--report", metavar="FILE", help="keep the figures here, as JSON")
    args = ap.parse_args()
    columns = [run(name, args) for name in args.names]
    if args.report:
        Path(args.report).write_text(json.dumps({"models": columns}, indent=1) + "\n")


if __name__ == "__main__":
    main()
