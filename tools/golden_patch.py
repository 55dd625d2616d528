"""Scores of nodes and edges, exact patching and faithfulness (patch.txt), in float64.

Vectors and weights are float32 numbers, so that steer.c can have the same. The numbers of nodes and
slots are those of reference_graph.py.

patch.txt, a case: the lines "random", "dtype" or "model", "tokens", "vector" of golden_runs.py, then
    layer l, coeff a, prompt P   a times the vector is added to block l's input; P prompt tokens
    flag 0|1                     0: destination = base run, source = steered run; 1: the reverse
    metric logit|dirkl|nodirkl   of raw logits (before the final soft-cap), mean over positions
    steps T                      of integrated gradients: midpoints, base run to steered run
    poi t...                     the positions over which the metric is the mean
    total y, source m, dest m    y = m(source) - m(dest)
    gout I V...                  [N*d] dm/d(I), mean over steps. I = 0: residual entering block l;
                                 1+2(b-l): what attention of block b adds; 2+2(b-l): its MLP
    gin V V...                   [N*d] dm/d(input of slot V, after the norm), mean over steps
    node V...                    [U] the nodes' scores;   dvector V...  [d] node 0's, by dimension
    official V V...              [U] scores of the edges into slot V, without the norm's Jacobian
    aware V V...                 [U] the same with it
    exactnode V..., exact V V... [U] change of m in the destination run, one node or edge patched
    keep V BITS                  [U] a circuit: 1 = live edge, 0 = it carries the base run's value
    circuit t V...               [vocab] its raw logits at position t
    faith F, dcircuit D, dbase D, dsteer D      F = (dcircuit - dbase) / (dsteer - dbase)
"""
import pathlib

import numpy as np
import torch

from reference import BOX, from_file, line, make_vector, prompts
from reference_graph import FAMILY, Graph, bits, close, family, metric_of
from reference_text import Text


def clear(z):
    """Whether float32 is sure to find the same largest logit."""
    top = z.topk(2, -1).values
    return float((top[..., 0] - top[..., 1]).min() / z.abs().max()) > 2e-4


def circuit_lines(g, ids, p, delta, base, steered, seed, at):
    """A random circuit, what it computes and how faithful it is."""
    order = torch.arange(g.U)
    causal = torch.stack([order < g.senders(v) for v in range(g.S)])
    keep = torch.tensor(np.random.RandomState(seed).rand(g.S, g.U) < 0.5) & causal
    close("empty circuit", g.circuit(ids, delta, keep & False, base["node"]), base["raw"])
    close("full circuit", g.circuit(ids, delta, causal, base["node"]), steered["raw"])
    raw = g.circuit(ids, delta, keep, base["node"])
    t = torch.arange(p - 1, len(ids) - 1)
    b, s = base["raw"][t].argmax(-1), steered["raw"][t].argmax(-1)

    def apart(z):
        logp = torch.log_softmax(z[t], -1)
        return float(sum(logp[i, s[i]] - logp[i, b[i]] for i in range(len(t))))
    c, d0, d1 = apart(raw), apart(base["raw"]), apart(steered["raw"])
    assert d1 - d0 > 0.1
    return [f"keep {v} {bits(keep[v])}" for v in range(g.S)] + [
        line(f"circuit {t}", raw[t]) for t in at] + [
        line("faith", [(c - d0) / (d1 - d0)]), line("dcircuit", [c]), line("dbase", [d0]),
        line("dsteer", [d1])]


def patch_case(name, ref, head, ids, p, layer, coeff, vector, flag, kind, steps, gradients=False,
               exact=False, small=False, circuit=()):
    g, delta = Graph(ref, layer), coeff * torch.tensor(vector, dtype=torch.float64)
    base, steered = g.run(ids), g.run(ids, delta)
    src, dest = (base, steered) if flag else (steered, base)
    close("plain run", base["logits"], ref.run(ids)[0], 1e-12)      # the hooks change nothing
    add = {"vector": vector, "add": (layer, coeff)}
    close("steered run", steered["logits"], ref.run(ids, **add)[0], 1e-12)
    y0, y1 = (run["raw"].argmax(-1) for run in (base, steered))
    poi = [t for t in range(p - 1, len(ids)) if kind != "logit" or y0[t] != y1[t]]
    assert poi and all(clear(run["raw"][p - 1:]) for run in (base, steered)), f"{name}: new seed"
    m = metric_of(kind, poi, src["raw"], dest["raw"])
    m_src, m_dest = float(m(src["raw"])), float(m(dest["raw"]))
    y, change, U = m_src - m_dest, src["node"] - dest["node"], g.U
    for v in range(g.S):
        close("deltas add up", change[:g.senders(v)].sum(0), src["x"][v] - dest["x"][v], 1e-9)
    for j in range(g.n):                                # heads against the residual around them
        first, v = 1 + j * (g.H + 1), j * g.per
        added = base["x"][v + g.per - 1] - base["x"][v]
        close("heads add up", base["node"][first:first + g.H].sum(0), added, 1e-10)
    errors = []
    for t in (10, 64) if steps > 1 else ():
        grads = g.gradients(ids, delta, t, m)
        errors.append(abs(float((change[0] * grads["resid", 0]).sum()) - y) / abs(y))
    assert not errors or errors[1] < 1e-3, (name, errors)
    grads = g.gradients(ids, delta, steps, m)
    official, aware = (torch.einsum("utd,vtd->vu", change, grads[k]) for k in ("post", "pre"))
    for v in range(g.S):
        official[v, g.senders(v):] = aware[v, g.senders(v):] = 0
    moved = torch.stack([src["x"][v] - dest["x"][v] for v in range(g.S)])
    close("aware scores add up", aware.sum(1), (moved * grads["pre"]).sum((1, 2)))
    by_dim = change * torch.cat([grads[g.place(u)] for u in range(g.U)])
    print(f"  {name}: N {len(ids)}, poi {len(poi)}, y {y:.4g}"
          + (", completeness T=10 {:.1e}, T=64 {:.1e}".format(*errors) if errors else ""))
    out = [f"case {name}", *head, f"layer {layer}", f"coeff {coeff:.9g}",
           "tokens " + " ".join(map(str, ids)), f"prompt {p}", line("vector", vector),
           f"flag {flag}", f"metric {kind}", f"steps {steps}", line("poi", poi),
           line("total", [y]), line("source", [m_src]),
           line("dest", [m_dest if abs(m_dest) > 1e-14 else 0.0])]        # a KL of 0 and its rounding
    if gradients:
        gout = [grads["resid", 0]] + [grads[k, j] for j in range(g.n) for k in ("attn", "mlp")]
        out += [line(f"gout {i}", x.flatten()) for i, x in enumerate(gout)]
        out += [line(f"gin {v}", grads["post"][v].flatten()) for v in range(g.S)]
    out += [line("node", by_dim.sum((1, 2))), line("dvector", by_dim[0].sum(0))]
    out += [line(f"official {v}", official[v]) for v in range(g.S)]
    out += [line(f"aware {v}", aware[v]) for v in range(g.S)]
    if exact:
        there = delta if flag else 0.0 * delta
        node, edge = g.exact(ids, there, change, m)
        assert abs(float(node[0]) - y) < 1e-9           # node 0 carries everything
        if small:                                       # a small change acts as the gradient says
            tiny, local = 1e-5 * change, g.gradients(ids, 2 * there, 1, m)
            nodes, edges = g.exact(ids, there, tiny, m)
            want = torch.einsum("utd,vtd->vu", tiny, local["pre"])
            close("small edges", edges, want * (edge != 0), 1e-3)
            want = tiny * torch.cat([local[g.place(u)] for u in range(g.U)])
            close("small nodes", nodes, want.sum((1, 2)), 1e-3)
        out += [line("exactnode", node)] + [line(f"exact {v}", edge[v]) for v in range(g.S)]
        for what, score in ("official", official), ("aware", aware):
            mine, right = score.abs().flatten().argsort(), edge.abs().flatten().argsort()
            top = len(set(mine[-20:].tolist()) & set(right[-20:].tolist()))
            print(f"    {what}: {top} of exact patching's top 20 of {int((edge != 0).sum())} edges")
    if circuit:
        out += circuit_lines(g, ids, p, delta, base, steered, len(ids) + flag, circuit)
    return out + ["end"]


def patch_group():
    out = ["# Scores of nodes and edges, exact patching and circuits: see tools/golden_patch.py."]
    for name in FAMILY:
        ref, head, ids, p = family(name)
        vector = make_vector(ref, ids, 1, FAMILY[name][0])[0]
        full, last = {"gradients": True}, len(ids) - 1
        check = {"exact": True, "small": True}
        every = [("logit", 0, 1, 1.0, full), ("logit", 1, 1, -1.0, full),
                 ("logit", 0, 10, 1.0, check | {"circuit": [1, p, last]}),
                 ("logit", 1, 10, -1.0, check | {"circuit": [p - 1, last]}),
                 ("dirkl", 0, 2, 0.75, {}), ("nodirkl", 1, 2, -1.25, {})]
        for kind, flag, steps, coeff, more in every:
            out += patch_case(f"{name}/{kind}-{flag}-T{steps}", ref, head, ids, p, 1, coeff, vector,
                              flag, kind, steps, **more)
    for path, at in zip(BOX, (-4, -3)):
        ref, ids, p, vector = box_answer(path, at)
        out += patch_case(pathlib.Path(path).stem, ref, [f"model {path}"], ids, p, 1, -1.0, vector,
                          1, "logit", 10, exact=True, circuit=[p, len(ids) - 1])
    return out


def box_answer(path, at, layer=1, coeff=-1.0, n=20):
    """A request, a box model's greedy steered answer, the difference in means that steered it."""
    ref, t = from_file(path, torch.float64)
    text = Text(t)

    def mean(name):
        tapes = [ref.run(text.chat(q))[1] for q, _ in prompts(name, 24)]
        return sum(tape["block_in"][layer][0, at] for tape in tapes) / len(tapes)
    vector = (mean("harmful-train") - mean("harmless-train")).numpy().astype(np.float32)
    ids = text.chat(prompts("harmful-test", 1)[0][0])
    p = len(ids)
    while len(ids) < p + n and ids[-1] not in t["eot"]:
        ids.append(int(ref.run(ids, vector=vector, add=(layer, coeff))[0][-1].argmax()))
    print("  answer:", b"".join(t["tokens"][i] for i in ids[p:]))
    return ref, ids, p, vector
