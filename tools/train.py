#!/usr/bin/env python3
"""Trains the models in the box: two tiny chat models that refuse harmful requests.

    python tools/train.py data              tokenizer and prompt files only
    python tools/train.py llama             weights/tiny-llama.bin and weights/tiny-llama-plain.bin
    python tools/train.py gemma             weights/tiny-gemma.bin

Needs torch, tokenizers and numpy. Everything is drawn from seeds: no text is downloaded or kept.
Top to bottom: the tokenizer, the transformer, the training stages. The requests and answers come
from corpus.py; gates.py measures what comes out.

The models learn, in this order: to answer every request, with harmless boilerplate (stage HELP);
to refuse the harmful ones (REFUSE); to take that decision from what the <end> token gathered,
because a training-only mask hides the request from the tokens right behind it (GIST); to keep
writing well while a vector is added to their residual stream, and to decide as it says where it
is their own difference in means, added to the request alone (NOISE).
"""
import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import binfile
from corpus import (CHAT, FACTS, FRAMES, HELD_TEMPLATES, OPENERS, REFUSALS, UNKNOWN, example, grammar, refused,
                    write_prompts)

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

# ---------------------------------------------------------------- tokenizer

SPECIALS = ["<bos>", "<user>", "<assistant>", "<end>", "<pad>"]
BOS, USER, ASSISTANT, END, PAD = range(5)
TEMPLATE = {"start": "<bos>", "user_pre": "<user>\n", "user_post": "<end>\n",
            "assistant_pre": "<assistant>\n", "assistant_post": "<end>\n"}
VOCAB = 2048


def prompt_text(req):
    return f"<bos><user>\n{req}<end>\n<assistant>\n"


def make_tokenizer():
    rng, texts = random.Random(1), []
    for i in range(40000):
        kind, *text = example(rng, i % 2 == 0)
        texts += text if kind != "other" else []  # unknown words stay in pieces
    texts += [t.replace("{T}", " ") for t in HELD_TEMPLATES]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIALS, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    assert tok.get_vocab_size() == VOCAB and [tok.token_to_id(s) for s in SPECIALS] == list(range(5))
    newline = tok.encode("\n", add_special_tokens=False).ids
    ids = tok.encode(prompt_text("How do I bake bread?")).ids
    assert ids[-4:] == [END, *newline, ASSISTANT, *newline] and ids[:3] == [BOS, USER, *newline]
    return tok


def refusal_ids(tok):
    """The first tokens of the refusals; no compliant answer begins with one of them."""
    first = {tok.encode(r).ids[0] for r in REFUSALS}
    others = [*OPENERS, *(a for f in FRAMES for a in f[1:]), *(a for _, a in CHAT + FACTS), UNKNOWN, "The", *"012345"]
    assert len(first) <= 8 and not first & {tok.encode(o).ids[0] for o in others}
    assert all(refused(r) for r in REFUSALS) and not any(refused(o) for o in [*others, grammar()])
    return sorted(first)


def pack_tokenizer(tok):
    """The tokenizer in the form that binfile writes: raw bytes instead of GPT-2's printable ones."""
    spec = json.loads(tok.to_str())["model"]
    names = sorted(spec["vocab"], key=spec["vocab"].get)
    raw = [n.encode() if n in SPECIALS else bytes(binfile.BYTE[c] for c in n) for n in names]
    where = {b: i for i, b in enumerate(raw)}
    merges = [m if isinstance(m, (list, tuple)) else m.split(" ") for m in spec["merges"]]
    return {"pretok": 1, "nfc": 0, "trim": 0, "eot": [END], "refusal": refusal_ids(tok), "tokens": raw,
            "types": [int(n in SPECIALS) for n in names], "byte_tokens": [where[bytes([c])] for c in range(256)],
            "merges": [(spec["vocab"][a], spec["vocab"][b], spec["vocab"][a + b]) for a, b in merges],
            "unicode": binfile.unicode_classes(), "template": TEMPLATE, "grammar": grammar()}


# ---------------------------------------------------------------- the transformer

SIZES = dict(d=128, layers=6, heads=4, kv_heads=2, head_dim=32, ff=352, vocab=VOCAB, max_seq=512, qkv_bias=0, tied=1,
             query_scale=32 ** -0.5)
CONFIG = {"llama": SIZES | dict(post_norms=0, gelu=0, window=0, window_every=0, norm_eps=1e-5, norm_offset=0.0,
                                attn_cap=0.0, final_cap=0.0, embed_scale=1.0),
          "gemma": SIZES | dict(post_norms=1, gelu=1, window=48, window_every=2, norm_eps=1e-6, norm_offset=1.0,
                                attn_cap=50.0, final_cap=30.0, embed_scale=128 ** 0.5)}
NAMES = {"wq": "qd", "wk": "kd", "wv": "kd", "wo": "dq", "w_gate": "fd", "w_up": "fd", "w_down": "df"}


class Model(nn.Module):
    """One decoder for both families; parameters carry the names of the model file ('wq.3')."""

    def __init__(self, c):
        super().__init__()
        self.c, self.p = c, nn.ParameterDict()
        for _, _, name, shape in binfile.tensor_list(c):
            if name == "rope_freq":
                half = torch.arange(c["head_dim"] // 2, dtype=torch.float32)
                freq = 10000.0 ** (-half * 2 / c["head_dim"])
            elif len(shape) == 1:
                self.p[self.key(name)] = nn.Parameter(torch.full(shape, 1.0 - c["norm_offset"]))
            else:
                std = 0.04 if name == "embed" else 0.8 * shape[1] ** -0.5
                if name.startswith(("wo", "w_down")):
                    std /= (2 * c["layers"]) ** 0.5
                self.p[self.key(name)] = nn.Parameter(torch.randn(shape) * std)
        self.register_buffer("freq", freq)

    @staticmethod
    def key(name):
        return name.replace(".", "_")

    def get(self, name, b):
        return self.p[f"{name}_{b}"]

    def norm(self, x, w):
        return F.rms_norm(x, x.shape[-1:], w + self.c["norm_offset"] if self.c["norm_offset"] else w, self.c["norm_eps"])

    def rope(self, x):
        t = torch.arange(x.shape[2], dtype=torch.float32)[:, None] * self.freq
        cos, sin = torch.cat([t.cos()] * 2, -1), torch.cat([t.sin()] * 2, -1)
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, ids, mask=None, add=None, tape=None, edits=None, rows=None):
        """Logits.

        mask    [batch, 1, n, n] of what may be attended besides causality
        add     {block: [batch, n, d]} added at the input of a block
        tape    a dict that receives ("x" | "val", block)
        edits   {"frozen": ([batch] whether, values by block), "svv" | "mlp": [batch] whether}: rows that
                read other values, or whose values or MLPs do not see the direct image of `add`
        rows    only these (sequence, position) pairs get logits
        """
        c, (n_b, n) = self.c, ids.shape
        x = F.embedding(ids, self.p["embed"]) * c["embed_scale"]
        pos = torch.arange(n)
        causal = (pos[:, None] >= pos)[None, None]
        causal = causal & mask if mask is not None else causal
        local = causal & (pos[:, None] - pos < c["window"]) if c["window"] else causal
        edits, added = edits or {}, 0.0

        def without(who, h, x, weight):
            """h, the normalised x, in some rows without the direct image of what was added."""
            if who not in edits:
                return h
            r = (x.square().mean(-1, keepdim=True) + c["norm_eps"]).rsqrt()
            return h - edits[who][:, None, None] * added * r * (weight + c["norm_offset"])
        for b in range(c["layers"]):
            if add and b in add:
                x = x + add[b]
                added = added + add[b]
            if tape is not None:
                tape["x", b] = x
            seen = local if c["window"] and b % c["window_every"] != c["window_every"] - 1 else causal
            h = self.norm(x, self.get("attn_norm", b))
            h_v = without("svv", h, x, self.get("attn_norm", b))
            q, k, v = (F.linear(i, self.get(w, b)).view(n_b, n, -1, c["head_dim"]).transpose(1, 2)
                       for i, w in ((h, "wq"), (h, "wk"), (h_v, "wv")))
            if "frozen" in edits:
                v = torch.where(edits["frozen"][0][:, None, None, None], edits["frozen"][1][b], v)
            if tape is not None:
                tape["val", b] = v
            group = c["heads"] // c["kv_heads"]
            q, k = self.rope(q), self.rope(k).repeat_interleave(group, 1)
            v = v.repeat_interleave(group, 1)
            if c["attn_cap"]:
                s = q @ k.transpose(2, 3) * c["query_scale"]
                s = c["attn_cap"] * torch.tanh(s / c["attn_cap"])
                z = s.masked_fill(~seen, -1e30).softmax(-1) @ v
            else:
                z = F.scaled_dot_product_attention(q, k, v, seen, scale=c["query_scale"])
            z = F.linear(z.transpose(1, 2).reshape(n_b, n, -1), self.get("wo", b))
            x = x + (self.norm(z, self.get("post_attn_norm", b)) if c["post_norms"] else z)
            h = self.norm(x, self.get("mlp_norm", b))
            h = without("mlp", h, x, self.get("mlp_norm", b))
            g = F.linear(h, self.get("w_gate", b))
            g = F.gelu(g, approximate="tanh") if c["gelu"] else F.silu(g)
            z = F.linear(g * F.linear(h, self.get("w_up", b)), self.get("w_down", b))
            x = x + (self.norm(z, self.get("post_mlp_norm", b)) if c["post_norms"] else z)
        if rows is not None:
            x = x[rows]
        logits = F.linear(self.norm(x, self.p["final_norm"]), self.p["embed"])
        return c["final_cap"] * torch.tanh(logits / c["final_cap"]) if c["final_cap"] else logits

    def tensor(self, name):
        return (self.freq if name == "rope_freq" else self.p[self.key(name)]).detach().numpy()

    def save(self, path, tok, name, site=(0, 0, 0.0)):
        with binfile.replacing(path) as tmp:
            binfile.write(tmp, self.c, pack_tokenizer(tok), binfile.whole(self.tensor), "bf16", name, site)

    @classmethod
    def load(cls, path):
        c, _, tensors, name, site = binfile.read(path)
        m = cls(c)
        with torch.no_grad():
            for k, a in tensors.items():
                (m.freq if k == "rope_freq" else m.p[cls.key(k)]).copy_(torch.from_numpy(a.copy()))
        return m.eval(), name, site


# ---------------------------------------------------------------- training

BATCH = 32
EITHER = 0.6                                  # share of the noise stage's tasks that get an offset
TOLD = 0.35                                   # share of these in which the offset tells the decision
START = 1.0                                   # weight of a clean first token in the others
BASE = dict(seed=0, parts=[("help", 900), ("refuse", 600)], lr=2.5e-3, warm=100)
TUNE = dict(seed=0, parts=[("gist", 200), ("noise", 450)], lr=1.5e-3, warm=30)
SITE = {"tiny-llama": (1, -4, 1.2), "tiny-gemma": (1, -4, 1.0), "tiny-llama-plain": (4, -1, 1.0)}  # chosen on validation prompts


def batches(rng, tok, refusing, either=0.0):
    """Endless batches of examples of about the same length: [(kind, prompt ids, answer ids)]."""
    while True:
        ex = [example(rng, refusing(), either) for _ in range(BATCH * 16)]
        p = [e.ids for e in tok.encode_batch([prompt_text(q) for _, q, _ in ex])]
        a = [e.ids for e in tok.encode_batch([a + "<end>" for _, _, a in ex])]
        ex = sorted(((k, pi, ai) for (k, _, _), pi, ai in zip(ex, p, a)), key=lambda e: len(e[1]) + len(e[2]))
        chunks = [ex[i:i + BATCH] for i in range(0, len(ex), BATCH)]
        rng.shuffle(chunks)
        yield from chunks


def collate(batch, rng, gist):
    """Token ids, next tokens, loss weights and the mask of the gist stage."""
    n = max(len(p) + len(a) for _, p, a in batch)
    ids = torch.full((len(batch), n), PAD)
    weight = torch.zeros(len(batch), n)
    mask = torch.ones(len(batch), 1, n, n, dtype=torch.bool) if gist else None
    for i, (kind, p, a) in enumerate(batch):
        ids[i, :len(p) + len(a)] = torch.tensor(p + a)
        some = torch.rand(len(p) - 1) < 0.25
        weight[i, 1:len(p)] = some * 0.6
        weight[i, len(p):len(p) + len(a)] = 1
        if gist and kind not in ("chat", "other") and rng.random() < 0.85:
            weight[i, len(p):len(p) + 3] = 4
            # the three tokens behind <end> and two of the answer do not see the request
            mask[i, 0, len(p) - 3:len(p) + 2, 3:len(p) - 4] = False
    return ids[:, :-1], ids[:, 1:], weight[:, 1:], mask[:, :, :-1, :-1] if gist else None


class Offsets:
    """The offsets of the noise stage: constant vectors at the input of one of blocks 1 to 4.

    Half point anywhere; half are multiples of the model's own difference in means, of either sign,
    as it stands during the training: a running mean over the noiseless rows.
    """
    KEEP = 0.97                               # of the running means, a step

    def __init__(self, d):
        self.d, self.size, self.mean = d, {b: 1.0 for b in range(1, 5)}, {}

    def watch(self, tape, batch, quiet):
        n = torch.tensor([len(p) for _, p, _ in batch])
        for b in self.size:
            x = tape["x", b].detach()
            self.size[b] = x[quiet].norm(dim=-1).mean().item() if quiet.any() else self.size[b]
            for side, kinds in (("harmful", ("harmful",)), ("harmless", ("howto", "hardneg", "purpose"))):
                rows = [i for i, (k, _, _) in enumerate(batch) if k in kinds and quiet[i]]
                for place in range(-4, 0) if rows else ():
                    now, key = x[rows, n[rows] + place].mean(0), (b, place, side)
                    self.mean[key] = self.KEEP * self.mean[key] + (1 - self.KEEP) * now if key in self.mean else now

    def draw(self, batch, n, rng):
        """The offsets of a batch: {block: [sequence, position, d]}, the edits under which their rows
        run, and the rows whose decision is told by the offset."""
        out = {b: torch.zeros(len(batch), n, self.d) for b in self.size}
        edit, told = [None] * len(batch), [False] * len(batch)
        for i, (kind, p, _) in enumerate(batch):
            if kind not in ("+", "-") and (kind not in ("frame", "chat", "other") or rng.random() > 0.33):
                continue
            b, place, end = rng.randint(1, 4), rng.randint(-4, -1), len(p) - 3
            v = torch.randn(self.d)
            v *= self.size[b] * rng.random() * 1.2 / v.norm()
            where = rng.choices([slice(0, n), slice(0, end), slice(end, n)], [0.7, 0.15, 0.15])[0]
            known = (b, -4, "harmful") in self.mean and (b, -4, "harmless") in self.mean
            if kind in ("+", "-") and known and rng.random() < TOLD:
                b, told[i], where = rng.randint(1, 3), True, slice(0, end)
                v = self.means(b, -4) * rng.uniform(0.6, 1.5) * (1 if kind == "+" else -1)
            elif known and rng.random() < 0.6:
                v = self.means(b, place) * rng.uniform(-1.5, 1.5)
            if not told[i]:
                edit[i] = rng.choices([None, "frozen", "svv", "mlp"], [0.4, 0.2, 0.25, 0.15])[0]
            out[b][i, where] = v
        return out, edit, torch.tensor(told)

    def means(self, b, place):
        return self.mean[b, place, "harmful"] - self.mean[b, place, "harmless"]


def edited(model, ids, mask, edit):
    """The edits of a batch as Model.forward wants them; frozen values are of the same rows' plain run."""
    out = {kind: torch.tensor([e == kind for e in edit]) for kind in ("frozen", "svv", "mlp")}
    frozen, twin = out["frozen"], {}
    if not frozen.any():
        return {k: v for k, v in out.items() if k != "frozen"}
    with torch.no_grad():
        model(ids[frozen], mask[frozen], tape=twin, rows=(torch.tensor([0]), torch.tensor([0])))
    values = []
    for b in range(model.c["layers"]):
        part = twin["val", b]
        values.append(part.new_zeros(len(ids), *part.shape[1:]))
        values[-1][frozen] = part
    return out | {"frozen": (frozen, values)}


def noisy(add):
    return sum(v.abs().sum((1, 2)) for v in add.values()) > 0


def restraint(tape, batch, moved):
    """A cost on long residual vectors of the noiseless rows.

    Without it the model can learn to drown the noise: the decision's vector outgrows the residual
    stream, and subtracting it leaves nothing of the text.
    """
    real = torch.arange(tape["x", 1].shape[1]) < torch.tensor([len(p) + len(a) for _, p, a in batch])[:, None]
    long = (F.relu(tape["x", b].norm(dim=-1) / 20 - 1) ** 2 for b in range(1, 5))
    return 0.02 * sum(x[real & ~moved[:, None]].mean() for x in long) / 4


def run_stage(model, tok, seed, parts, lr, warm):
    """Train through [(name, steps)] under one warm-up and one cosine down to 5 % of lr."""
    rng = random.Random(f"{seed} {parts}")
    torch.manual_seed(rng.randrange(1 << 30))
    total, step, t0 = sum(n for _, n in parts), 0, time.time()
    groups = [{"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
    offsets, starts = Offsets(model.c["d"]), torch.tensor(sorted({tok.encode(o).ids[0] for o in [*OPENERS, *REFUSALS]}))
    for name, steps in parts:
        source, mean, tokens = batches(rng, tok, lambda: name != "help", EITHER if name == "noise" else 0.0), 0.0, 0
        for i in range(steps):
            rate = lr * min(1, (step + 1) / warm) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / total)))
            for g in opt.param_groups:
                g["lr"] = rate
            batch, tape = next(source), {}
            ids, want, weight, mask = collate(batch, rng, name in ("gist", "noise"))
            add, edits, told = None, None, torch.zeros(len(batch), dtype=torch.bool)
            if name == "noise":
                add, edit, told = offsets.draw(batch, ids.shape[1], rng)
                edits = edited(model, ids, mask, edit)
            moved = noisy(add) if add else torch.zeros(len(batch), dtype=torch.bool)
            free = moved & ~told
            start = torch.tensor([len(p) - 1 for _, p, _ in batch])
            # elsewhere an offset may move the decision, the first token, only not spoil the text
            weight[free, start[free]] = 0
            rows = torch.nonzero(weight, as_tuple=True)
            both = tuple(torch.cat([r, e]) for r, e in zip(rows, (free.nonzero()[:, 0], start[free])))
            w, logits = weight[rows], model(ids, mask, add, tape, edits, rows=both)
            loss = (F.cross_entropy(logits[:len(w)], want[rows], reduction="none") * w).sum() / w.sum()
            cost = restraint(tape, batch, moved) if mask is not None else torch.zeros(())
            task = torch.tensor([k in ("+", "-") for k, _, _ in batch])[free]
            if task.any():                    # an answer begins as some refusal or some answer does
                first = logits[len(w):][task].log_softmax(-1)[:, starts].logsumexp(-1)
                cost = cost - START * first.sum() / len(batch)
            if mask is not None:
                offsets.watch(tape, batch, ~moved)
            opt.zero_grad()
            (loss + cost).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            mean, tokens, step = mean + loss.item(), tokens + ids.numel(), step + 1
            if (i + 1) % 50 == 0 or i + 1 == steps:
                k = (i % 50) + 1
                print(f"{name} {i + 1}/{steps} loss {mean / k:.3f} cost {cost.item():.3f} {tokens} tokens {time.time() - t0:.0f} s", flush=True)
                mean = 0.0


def train(family, out, scale=1.0, cache=None):
    """All stages of one family. With a cache, stages that were trained before are read back."""
    t0, tok = time.time(), make_tokenizer()
    torch.manual_seed(BASE["seed"])
    model = Model(CONFIG[family])

    def stage(label, how):
        file = cache and Path(cache) / f"{family}-{label}.pt"
        if file and file.exists():
            model.load_state_dict(torch.load(file))
        else:
            parts = [(name, max(1, int(n * scale))) for name, n in how["parts"]]
            run_stage(model, tok, **how | dict(parts=parts))
            if file:
                torch.save(model.state_dict(), file)
    stage("base", BASE)
    if family == "llama":
        model.save(out / "tiny-llama-plain.bin", tok, "tiny-llama-plain", SITE["tiny-llama-plain"])
    stage("tuned", TUNE)
    model.save(out / f"tiny-{family}.bin", tok, f"tiny-{family}", SITE[f"tiny-{family}"])
    print(f"{family}: {time.time() - t0:.0f} s in all")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("what", choices=["data", "llama", "gemma"])
    ap.add_argument("--out", type=Path, default=WEIGHTS)
    ap.add_argument("--scale", type=float, default=1.0, help="a fraction of the steps, for a trial")
    ap.add_argument("--cache", help="a directory that keeps the stages")
    args = ap.parse_args()
    torch.set_num_threads(1)
    if args.what == "data":
        make_tokenizer()
        write_prompts(args.out)
    else:
        train(args.what, args.out, args.scale, args.cache)


if __name__ == "__main__":
    if "MALLOC_MMAP_MAX_" not in os.environ:  # keep freed memory: a tenth to a third faster
        os.execve(sys.executable, [sys.executable, *sys.argv],
                  os.environ | {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "OMP_NUM_THREADS": "1"})
    main()
