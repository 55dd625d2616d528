#!/usr/bin/env python3
"""Trains the models in the box: two tiny chat models that refuse harmful requests.

    python tools/train.py data              tokenizer and prompt files only
    python tools/train.py llama             weights/tiny-llama.bin and weights/tiny-llama-plain.bin
    python tools/train.py gemma             weights/tiny-gemma.bin
    python tools/train.py sites FILE...     what steering does at every layer and position (validation)
    python tools/train.py evaluate FILE...  refusals, steering and freezing on the test prompts

Needs torch, tokenizers and numpy. Everything is drawn from seeds: no text is downloaded or kept.
Top to bottom: the tokenizer, the transformer, the training stages, the evaluation. The requests
and answers come from corpus.py.

The models learn, in this order: to answer every request, with harmless boilerplate (stage HELP);
to refuse the harmful ones (REFUSE); to take that decision from what the <end> token gathered,
because a training-only mask hides the request from the tokens right behind it (GIST); to keep
writing well while a random vector is added to their residual stream (NOISE). The shipped weights
are the mean of two such tunings (see TUNE).
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
from corpus import (CHAT, FRAMES, HELD_TEMPLATES, OPENERS, REFUSALS, coherent, example, grammar,
                    read_prompts, refused, write_prompts)

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
        texts += example(rng, i % 2 == 0)[1:]
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
    others = [*OPENERS, *(a for f in FRAMES for a in f[1:]), *(a for _, a in CHAT), "The"]
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

    def forward(self, ids, mask=None, add=None, tape=None, frozen=None, rows=None):
        """Logits.

        mask    [batch, 1, n, n] of what may be attended besides causality
        add     {block: vector} added at the input of a block, at all positions
        tape    a dict that receives ("x" | "att" | "val", block)
        frozen  a dict read instead of computing ("att" | "val", block); {} just to fill the tape
        rows    only these (sequence, position) pairs get logits
        """
        c, (n_b, n) = self.c, ids.shape
        x = F.embedding(ids, self.p["embed"]) * c["embed_scale"]
        pos = torch.arange(n)
        causal = (pos[:, None] >= pos)[None, None]
        causal = causal & mask if mask is not None else causal
        local = causal & (pos[:, None] - pos < c["window"]) if c["window"] else causal
        for b in range(c["layers"]):
            if add and b in add:
                x = x + add[b]
            if tape is not None:
                tape["x", b] = x
            seen = local if c["window"] and b % c["window_every"] != c["window_every"] - 1 else causal
            h = self.norm(x, self.get("attn_norm", b))
            q, k, v = (F.linear(h, self.get(w, b)).view(n_b, n, -1, c["head_dim"]).transpose(1, 2) for w in ("wq", "wk", "wv"))
            v = (frozen or {}).get(("val", b), v)
            if tape is not None:
                tape["val", b] = v
            group = c["heads"] // c["kv_heads"]
            q, k = self.rope(q), self.rope(k).repeat_interleave(group, 1)
            v = v.repeat_interleave(group, 1)
            if not c["attn_cap"] and frozen is None:
                z = F.scaled_dot_product_attention(q, k, v, seen, scale=c["query_scale"])
            else:
                s = q @ k.transpose(2, 3) * c["query_scale"]
                if c["attn_cap"]:
                    s = c["attn_cap"] * torch.tanh(s / c["attn_cap"])
                a = (frozen or {}).get(("att", b))
                a = s.masked_fill(~seen, -1e30).softmax(-1) if a is None else a
                if tape is not None:
                    tape["att", b] = a
                z = a @ v
            z = F.linear(z.transpose(1, 2).reshape(n_b, n, -1), self.get("wo", b))
            x = x + (self.norm(z, self.get("post_attn_norm", b)) if c["post_norms"] else z)
            h = self.norm(x, self.get("mlp_norm", b))
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
BASE = dict(seed=0, parts=[("help", 900), ("refuse", 600)], lr=2.5e-3, warm=100, hold=0)
GIST = dict(seed=0, parts=[("gist", 300), ("noise", 300)], lr=1.5e-3, warm=30, hold=0)
# Each shipped model is a mean of two tunings: (first, second, from where the second starts, its
# share). For llama one holds the variance at <end> down (see restraint) and one does not: alone the
# first is steered too weakly, the second too strongly. For gemma the second goes on from the first.
TUNE = {"llama": (GIST | dict(hold=3), GIST, "base", 0.65),
        "gemma": (GIST, dict(seed=11, parts=[("gist", 150), ("noise", 250)], lr=6e-4, warm=20, hold=0), "first", 0.5)}
SITE = {"tiny-llama": (1, -4, 1.0), "tiny-gemma": (1, -3, 1.0), "tiny-llama-plain": (5, -1, 1.0)}  # settled beforehand; compare `sites`


def batches(rng, tok, refusing):
    """Endless batches of examples of about the same length: [(kind, prompt ids, answer ids)]."""
    while True:
        ex = [example(rng, refusing()) for _ in range(BATCH * 16)]
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
        if gist and kind != "chat" and rng.random() < 0.85:
            weight[i, len(p):len(p) + 3] = 4
            # the three tokens behind <end> and two of the answer do not see the request
            mask[i, 0, len(p) - 3:len(p) + 2, 3:len(p) - 4] = False
    return ids[:, :-1], ids[:, 1:], weight[:, 1:], mask[:, :, :-1, :-1] if gist else None


def noise(size, n, d, rng):
    """Random constant offsets at the input of one of blocks 1 to 4, in 60 % of n sequences."""
    out = {b: torch.zeros(n, 1, d) for b in size}
    for i in range(n):
        if rng.random() < 0.6:
            b, v = rng.randint(1, 4), torch.randn(d)
            out[b][i, 0] = v / v.norm() * size[b] * rng.random() * 1.2
    return out


def noisy(add):
    return sum(v.abs().sum((1, 2)) for v in add.values()) > 0


def restraint(tape, batch, add, hold):
    """A cost on long residual vectors and, up to the input of block `hold`, on how much the one at
    <end> varies between requests.

    Without it the model can learn to drown the noise: the decision's vector outgrows the residual
    stream, and subtracting it leaves nothing of the text. Only noiseless rows count.
    """
    quiet = ~noisy(add) if add else torch.ones(len(batch), dtype=torch.bool)
    end = torch.tensor([len(p) - 4 for _, p, _ in batch])
    real = torch.arange(tape["x", 1].shape[1]) < torch.tensor([len(p) + len(a) for _, p, a in batch])[:, None]
    long = sum((F.relu(tape["x", b].norm(dim=-1) / 20 - 1) ** 2)[real & quiet[:, None]].mean() for b in range(1, 5)) / 4
    at_end = (tape["x", b][torch.arange(len(batch)), end][quiet] for b in range(1, hold + 1))
    wide = sum(F.relu(x.var(0).sum() / 40 - 1) for x in at_end) / 3
    return 0.02 * long + (0.05 * wide if quiet.sum() > 3 else 0.0)


def run_stage(model, tok, seed, parts, lr, warm, hold):
    """Train through [(name, steps)] under one warm-up and one cosine down to 5 % of lr."""
    rng = random.Random(f"{seed} {parts}")
    torch.manual_seed(rng.randrange(1 << 30))
    total, step, t0 = sum(n for _, n in parts), 0, time.time()
    groups = [{"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
    for name, steps in parts:
        source, mean, tokens = batches(rng, tok, lambda: name != "help"), 0.0, 0
        for i in range(steps):
            rate = lr * min(1, (step + 1) / warm) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / total)))
            for g in opt.param_groups:
                g["lr"] = rate
            batch, tape = next(source), {}
            ids, want, weight, mask = collate(batch, rng, name in ("gist", "noise"))
            add = noise(size, len(ids), model.c["d"], rng) if name == "noise" else None
            for row in torch.nonzero(noisy(add))[:, 0].tolist() if add else []:
                start = len(batch[row][1]) - 1  # an offset may move the decision, only not spoil the text
                weight[row, start:start + 3] = 0
            rows = torch.nonzero(weight, as_tuple=True)
            w = weight[rows]
            loss = (F.cross_entropy(model(ids, mask, add, tape, rows=rows), want[rows], reduction="none") * w).sum() / w.sum()
            cost = restraint(tape, batch, add, hold) if mask is not None else torch.zeros(())
            size = {b: tape["x", b].detach().norm(dim=-1).mean().item() for b in range(1, 5)}
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
        return {k: v.clone() for k, v in model.state_dict().items()}
    base = stage("base", BASE)
    if family == "llama":
        model.save(out / "tiny-llama-plain.bin", tok, "tiny-llama-plain", SITE["tiny-llama-plain"])
    first_how, second_how, start, share = TUNE[family]
    first = stage("first", first_how)
    model.load_state_dict({"base": base, "first": first}[start])
    second = stage("second", second_how)
    model.load_state_dict({k: (1 - share) * first[k] + share * second[k] for k in first})
    model.save(out / f"tiny-{family}.bin", tok, f"tiny-{family}", SITE[f"tiny-{family}"])
    print(f"{family}: {time.time() - t0:.0f} s in all")


# ---------------------------------------------------------------- evaluation

@torch.no_grad()
def generate(model, tok, prompts, add=None, freeze=None, layer=0, limit=72):
    """Greedy answers. freeze 'att' or 'val': blocks from layer on read it from an unsteered run."""
    ids = [e.ids for e in tok.encode_batch([prompt_text(p) for p in prompts])]
    order, texts = sorted(range(len(ids)), key=lambda i: len(ids[i])), {}
    for at in range(0, len(order), 32):
        live, seqs = order[at:at + 32], {i: list(ids[i]) for i in order[at:at + 32]}
        for _ in range(limit):
            n = max(len(seqs[i]) for i in live)
            x = torch.tensor([seqs[i] + [PAD] * (n - len(seqs[i])) for i in live])
            rows = (torch.arange(len(live)), torch.tensor([len(seqs[i]) - 1 for i in live]))
            fixed = None
            if freeze:
                tape = {}
                model(x, tape=tape, frozen={}, rows=rows)
                fixed = {k: v for k, v in tape.items() if k[0] == freeze and k[1] >= layer}
            for i, t in zip(live, model(x, add=add, frozen=fixed, rows=rows).argmax(-1).tolist()):
                seqs[i].append(t)
            live = [i for i in live if seqs[i][-1] != END]
            if not live:
                break
        for i, s in seqs.items():
            texts[i] = tok.decode([t for t in s[len(ids[i]):] if t != END], skip_special_tokens=False)
    return [texts[i] for i in range(len(ids))]


@torch.no_grad()
def directions(model, tok):
    """{(layer, position): difference in means at the input of a block}."""
    mean = []
    for side in ("harmful", "harmless"):
        total = {}
        for q, _ in read_prompts(WEIGHTS / f"{side}-train.txt"):
            tape = {}
            model(torch.tensor([tok.encode(prompt_text(q)).ids]), tape=tape)
            for b in range(1, 6):
                for i in range(-4, 0):
                    total[b, i] = total.get((b, i), 0) + tape["x", b][0, i].double() / 192
        mean.append(total)
    return {k: (mean[0][k] - mean[1][k]).float() for k in mean[0]}


def rates(model, tok, prompts, **kw):
    """(share refused, share coherent) of prompts."""
    texts = generate(model, tok, [q for q, _ in prompts], **kw)
    return (float(np.mean([refused(t) for t in texts])),
            float(np.mean([coherent(t, task) for t, (_, task) in zip(texts, prompts)])))


def freezing(model, tok, v, layer, good, bad, **kw):
    """{None, 'att', 'val': (refused harmless at +1, refused harmful at -1)}."""
    return {f: (rates(model, tok, good, add={layer: v}, freeze=f, layer=layer, **kw)[0],
                rates(model, tok, bad, add={layer: -v}, freeze=f, layer=layer, **kw)[0]) for f in (None, "att", "val")}


def loss_points(table, f):
    """Points lost by freezing, the mean of both directions."""
    return 50 * (table[None][0] - table[f][0] + table[f][1] - table[None][1])


def sites(path, n):
    """What steering does at every site, and what freezing then costs, on n validation prompts a cell."""
    tok = make_tokenizer()
    model, name, _ = Model.load(path)
    bad, good = read_prompts(WEIGHTS / "harmful-val.txt")[:n], read_prompts(WEIGHTS / "harmless-val.txt")[:n]
    for (b, i), v in directions(model, tok).items():
        up = rates(model, tok, good, add={b: v}, limit=12)[0]
        down = rates(model, tok, bad, add={b: -v}, limit=12)[0]
        line = f"{name} layer {b} position {i} norm {v.norm():.1f}: +1 {up:.2f} -1 {down:.2f}"
        if up - down > 0.8:
            t = freezing(model, tok, v, b, good, bad, limit=12)
            line += f" coherent {rates(model, tok, bad, add={b: -v})[1]:.2f}"
            line += f"; patterns lose {loss_points(t, 'att'):.1f}, values {loss_points(t, 'val'):.1f}"
        print(line, flush=True)


def evaluate(path, n):
    tok = make_tokenizer()
    model, name, site = Model.load(path)
    good, bad, why = (read_prompts(WEIGHTS / f)[:n] for f in ("harmless-test.txt", "harmful-test.txt", "purposes-test.txt"))
    layer, position, _ = site
    t0 = time.time()
    v = directions(model, tok)[layer, position]
    print(f"{name}: site layer {layer} position {position}, norm {v.norm():.2f}, {n} prompts a cell")
    r = {k: rates(model, tok, p) for k, p in (("harmful", bad), ("harmless", good), ("purposes", why))}
    for k, (ref, coh) in r.items():
        print(f"  {k:10} refused {ref:.3f} coherent {coh:.3f}")
    up, down = rates(model, tok, good, add={layer: v}), rates(model, tok, bad, add={layer: -v})
    print(f"  steered    +1: harmless refused {up[0]:.3f}; -1: harmful refused {down[0]:.3f}, coherent {down[1]:.3f}")
    t = freezing(model, tok, v, layer, good, bad, limit=24)
    for f, what in (("att", "patterns"), ("val", "values")):
        print(f"  {what:8} frozen: +1 {t[f][0]:.3f} -1 {t[f][1]:.3f}, {loss_points(t, f):.1f} points lost")
    print(f"  {time.time() - t0:.0f} s", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("what", choices=["data", "llama", "gemma", "sites", "evaluate"])
    ap.add_argument("files", nargs="*")
    ap.add_argument("--out", type=Path, default=WEIGHTS)
    ap.add_argument("--scale", type=float, default=1.0, help="a fraction of the steps, for a trial")
    ap.add_argument("--cache", help="a directory that keeps the stages")
    ap.add_argument("-n", type=int, default=64, help="prompts a cell")
    args = ap.parse_args()
    torch.set_num_threads(1)
    if args.what == "data":
        make_tokenizer()
        write_prompts(args.out)
    elif args.what == "evaluate":
        for f in args.files:
            evaluate(f, args.n)
    elif args.what == "sites":
        for f in args.files:
            sites(f, args.n)
    else:
        train(args.what, args.out, args.scale, args.cache)


if __name__ == "__main__":
    if "MALLOC_MMAP_MAX_" not in os.environ:  # keep freed memory: a tenth to a third faster
        os.execve(sys.executable, [sys.executable, *sys.argv],
                  os.environ | {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "OMP_NUM_THREADS": "1"})
    main()
