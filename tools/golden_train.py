"""Training a vector, value vectors and sparse vectors (train.txt), in float64.

train.txt, by the first word of the case's name:
    train/  layer l, sign c, factor f, phi, window W, prompt P, win ID..., lose ID... (prompt
            included), vector v; then ntp LOSS, ntpgrad V..., ref W L (sums of log-probabilities of
            the unsteered run), beta, po LOSS, pograd V...
    adam    lr, start V..., then for e = 0, 1...: grad e V..., after e V...
    svv/    layer l, vector s; svv b h V... of s / |s| (no bias: the image is linear in s),
            svvsum V...; lens b h ID... the top tokens, lensv b h V... their raw logits; the sum's
            are lens -1 0
    sparse  s V..., e V..., then for every tau: tau TAU k, gradmask, iemask, magmask BITS (1: kept),
            renorm V... of the gradient rule's
"""
import numpy as np
import torch

from reference import line, make_vector
from reference_graph import FAMILY, Graph, bits, close, family


def window_logp(g, ids, p, width, delta=0.0):
    """ln p of the first `width` response tokens, by the network's real logits."""
    t = torch.arange(p - 1, min(p - 1 + width, len(ids) - 1))
    logp = torch.log_softmax(g.run(ids, delta)["logits"][t], -1)
    return logp[range(len(t)), torch.tensor(ids)[t + 1]]


def train_case(name, ref, head, sign, factor, phi, width, win, lose, p, v):
    """Losses NTP and PO of the pair, and their gradients."""
    g, one = Graph(ref, 1), lambda x: line("", [x]).strip()
    x = torch.tensor(v, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        w, l = (window_logp(g, ids, p, width, sign * factor * x) for ids in (win, lose))
        ref_w, ref_l = (window_logp(g, ids, p, width).sum() for ids in (win, lose))
        beta = torch.clamp(phi * (ref_l - ref_w), min=1.0)
        ntp = -w.mean()
        po = -torch.nn.functional.logsigmoid(beta / len(w) * w.sum() - l.sum() / len(l))
        ntp_grad, = torch.autograd.grad(ntp, x, retain_graph=True)
        po_grad, = torch.autograd.grad(po, x)
    print(f"  {name}: {len(w)} and {len(l)} tokens, ntp {ntp:.4g}, po {po:.4g}, beta {beta:.4g}")
    return [f"case {name}", *head, "layer 1", f"sign {sign}", f"factor {factor}", f"phi {phi:.9g}",
            f"window {width}", f"prompt {p}", "win " + " ".join(map(str, win)),
            "lose " + " ".join(map(str, lose)), line("vector", v), f"ntp {one(ntp)}",
            line("ntpgrad", ntp_grad), line("ref", [ref_w, ref_l]), f"beta {one(beta)}",
            f"po {one(po)}", line("pograd", po_grad), "end"], float(beta)


def adam_case(d=8, lr=0.01):
    """AdamW without decay, the gradient clipped to norm 1, the rate lr * (1 - e/10) in step e."""
    rng = np.random.RandomState(41)
    x = torch.tensor(rng.standard_normal(d).astype(np.float32) * 0.01, dtype=torch.float64)
    x.requires_grad_(True)
    opt = torch.optim.AdamW([x], lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda e: 1 - e / 10)
    out = ["case adam", line("lr", [lr]), line("start", x)]
    for e, size in enumerate((1.0, 0.05, 3.0, 1e-3, 0.2)):
        grad = (rng.standard_normal(d) * size).astype(np.float32)
        x.grad = torch.tensor(grad, dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_([x], 1.0)
        opt.step()
        schedule.step()
        out += [line(f"grad {e}", grad), line(f"after {e}", x)]
    return out + ["end"]


def svv_case(name, ref, head, ids, vector, layer):
    """What the vector becomes behind each head's value and output matrices, and its tokens."""
    g, net = Graph(ref, layer), ref.net
    s = torch.tensor(vector, dtype=torch.float64)
    out, every, norm = [], [], s.norm()
    for j, block in enumerate(net.model.layers[layer:]):
        attn, gain = block.self_attn, ref.gains["svv"][layer + j]
        value = attn.v_proj.weight @ (s / norm * gain)
        value = value.view(g.K, -1).repeat_interleave(g.H // g.K, 0)
        svv = torch.einsum("hc,dhc->hd", value, attn.o_proj.weight.unflatten(-1, (g.H, -1)))
        if ref.gemma:
            svv = svv * (1 + block.post_attention_layernorm.weight)
        every += [(layer + j, h, x) for h, x in enumerate(svv)]
    # What removing the vector takes from the heads.
    plan, attn = {"vector": vector, "add": (layer, 1.0)}, net.model.layers[layer].self_attn
    (_, on), (_, off) = ref.run(ids, **plan), ref.run(ids, **plan, remove="svv")
    pattern = on["pattern"][layer][0] @ ref.rms(on["attn_norm_in"][layer])[0]        # [H, N, 1]
    heads = torch.stack([x for _, _, x in every[:g.H]]) * norm
    want = torch.einsum("hto,hd->td", pattern, heads)
    gain = 1 + net.model.layers[layer].post_attention_layernorm.weight if ref.gemma else 1.0
    have = on["attn_out"][layer] - off["attn_out"][layer]
    close("steering value vectors", have[0] * gain, want)
    total = sum(x for _, _, x in every)
    out = [f"case {name}", *head, f"layer {layer}", line("vector", vector)]
    out += [line(f"svv {b} {h}", x) for b, h, x in every] + [line("svvsum", total)]
    for b, h, x in [*every, (-1, 0, total)]:
        unit = x / x.pow(2).mean().sqrt()
        z = net.lm_head.weight @ net.model.norm.forward(unit)
        top = z.topk(9)
        assert float((top.values[:-1] - top.values[1:]).min()) > 2e-4, f"{name}: another seed"
        out += [f"lens {b} {h} " + " ".join(str(int(i)) for i in top.indices[:8]),
                line(f"lensv {b} {h}", top.values[:8])]
    return out + ["end"]


def sparse_case(d=32):
    rng = np.random.RandomState(44)
    s = rng.standard_normal(d)
    e = s * rng.standard_normal(d) * np.exp(rng.standard_normal(d))
    s, e = s.astype(np.float32), e.astype(np.float32)
    s[5] = e[5] = 0
    out, s64, e64 = ["case sparse", line("s", s), line("e", e)], s.astype(float), e.astype(float)
    a, b = np.abs(s64) / np.linalg.norm(s64), np.abs(e64) / np.linalg.norm(e64)
    for tau in 0.0, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5:
        gone = b < tau * a
        assert np.abs(b - tau * a)[np.arange(d) != 5].min() > 1e-5
        k = int(gone.sum())
        masks = [~gone]
        for x in b, a:
            masks.append(np.ones(d, bool))
            masks[-1][np.argsort(x, kind="stable")[:k]] = False
        left = np.where(gone, 0, s64)
        assert all(k + m.sum() == d for m in masks) and k < d
        out += [f"tau {tau:.9g} {k}"]
        out += [f"{rule}mask {bits(m)}" for rule, m in zip(("grad", "ie", "mag"), masks)]
        out += [line("renorm", left * np.linalg.norm(s64) / np.linalg.norm(left))]
    return out + ["end"]


def train_group():
    out, betas = ["# Training, value vectors, sparse vectors: see tools/golden_train.py."], []
    plans = [("llama", "llama", 1, 4, 0.02, 64), ("qwen", "qwen", -1, 2, 0.5, 64),
             ("gemma", "gemma", -1, 10, 1e-5, 64), ("llama-window", "llama", -1, 20, 1.0, 3),
             ("gemma-window", "gemma", 1, 8, 1.5, 3)]
    for i, (case, name, sign, factor, phi, width) in enumerate(plans):
        ref, head, ids, p = family(name)
        v = (make_vector(ref, ids, 1, 50 + i)[0] / factor).astype(np.float32)
        rng = np.random.RandomState(60 + i)
        win, lose = (ids[:p] + rng.randint(ref.c["vocab"], size=n).tolist() for n in (6, 8))
        if phi > 0.1:                                   # so that beta is over its floor of 1
            sums = [float(window_logp(Graph(ref, 1), r, p, width).sum()) for r in (win, lose)]
            win, lose = (win, lose) if sums[0] < sums[1] else (lose, win)
        lines, beta = train_case(f"train/{case}", ref, head, sign, factor, phi, width, win, lose, p,
                                 v)
        out, betas = out + lines, betas + [beta]
    assert sum(b > 1 for b in betas) > 1 and sum(b == 1 for b in betas) > 1
    out += adam_case()
    for name in FAMILY:
        ref, head, ids, p = family(name)
        vector = make_vector(ref, ids, 1, FAMILY[name][0])[0]
        out += svv_case(f"svv/{name}", ref, head, ids, vector, 1)
    return out + sparse_case()
