"""The reference for circuits: scores of nodes and edges, exact patching, faithfulness (patch.txt).

    python tools/oracle.py [--check] patch

Float64 and PyTorch's autograd on the networks of oracle.py, written from the paper (2604.08524)
and the code published with it. Vectors and weights are float32 numbers, so steer.c can have the
same. How the numbers of nodes and slots run is said at class Graph.

patch.txt, a case: the lines "random", "dtype" or "model", "tokens", "vector" of oracle.py, then
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

import binfile
from oracle import (BOX, Reference, Text, far, from_file, line, make_vector, prompts,
                    random_tensors, sizes)

# name: (seed, rope base, shape, tokens, prompt tokens)
FAMILY = {
    "llama": (31, 1e4, sizes(16, 4, 4, 2, 8, 32, 60, tied=0), 8, 4),
    "qwen": (32, 1e6, sizes(20, 3, 4, 2, 6, 36, 61, qkv_bias=1, norm_eps=1e-6), 8, 4),
    "gemma": (33, 1e4, sizes(20, 3, 4, 2, 8, 28, 57, post_norms=1, gelu=1, window=4, window_every=2,
                             norm_eps=1e-6, norm_offset=1.0, attn_cap=2.0, final_cap=3.0,
                             embed_scale=20 ** 0.5, query_scale=6 ** -0.5), 9, 4)}


def family(name):
    """(network, its lines in the golden file, random tokens, prompt tokens)"""
    seed, base, c, n, p = FAMILY[name]
    keys = [k for k in binfile.CONFIG_INT + binfile.CONFIG_FLT if k != "max_seq"]
    numbers = " ".join(f"{c[k]:.9g}" for k in keys)
    ids = np.random.RandomState(seed).randint(c["vocab"], size=n).tolist()
    ref = Reference(c, random_tensors(seed, base, c, "f32"), torch.float64)
    return ref, [f"random {seed} {base:.9g} {numbers}", "dtype f32"], ids, p


def close(what, a, b, tolerance=1e-9):
    assert far(a, b) <= tolerance, f"self-check: {what}: {far(a, b):.2g}"


def clear(z):
    """Whether float32 is sure to find the same largest logit."""
    top = z.topk(2, -1).values
    return float((top[..., 0] - top[..., 1]).min() / z.abs().max()) > 2e-4


# ---- the graph ----------------------------------------------------------------------------------

def same(site, i, x):
    return x


class Graph:
    """A network with a place for edits at every node and slot of the blocks >= layer.

    Nodes: 0 the residual entering block l, the vector included; then for every block b >= l its
    heads and its MLP: head h is 1 + (b-l)(H+1) + h, the MLP 1 + (b-l)(H+1) + H. A node's output is
    what it adds to the residual. Slots: for every block b >= l from (b-l)(H+2K+1) on the queries of
    H heads, the keys and then the values of K groups, the MLP; last the unembedding.
    """

    def __init__(self, ref, layer):
        self.ref, self.layer, c = ref, layer, ref.c
        self.H, self.K, self.d = c["heads"], c["kv_heads"], c["d"]
        self.n, self.per = ref.layers - layer, self.H + 2 * self.K + 1
        self.U, self.S = 1 + self.n * (self.H + 1), self.n * self.per + 1
        ref.net.requires_grad_(False)

    def senders(self, v):
        """The nodes 0..this-1 come before slot v."""
        j, kind = divmod(v, self.per)
        return 1 + j * (self.H + 1) + (self.H if kind == self.per - 1 else 0)

    def place(self, u):
        """The edit that changes the output of node u."""
        b, h = divmod(u - 1, self.H + 1)
        return ("resid", 0) if u == 0 else ("mlp" if h == self.H else "attn", b)

    def run(self, ids, delta=0.0, edit=same):
        """One pass with `delta` added at the input of block `layer`. edit(site, i, x) -> a new x:
            resid 0, attn j, mlp j      what enters block l; what block l+j's attention and MLP add
            pre v, post v               [slots, N, d] inputs of slots v...: before, after the norm
            node u                      outputs of nodes u, u+1... (to look at)
        Returns a tape: raw logits, logits, node [U, N, d], x {slot: residual before its norm}."""
        tape, handles, seen, net = {"node": [], "x": {}}, [], {}, self.ref.net
        count = 0

        def nodes(x):
            nonlocal count
            edit("node", count, x)
            tape["node"].append(x)
            count += len(x)

        def slots(v, n, norm):
            for i in range(v, v + n):
                tape["x"][i] = seen[norm][0]
            return edit("post", v, norm.forward(edit("pre", v, seen[norm].expand(n, -1, -1))))

        def project(v, n, norm):
            """A projection, each of whose n heads has an input of its own."""
            def hook(m, _, y):
                w = m.weight.view(n, -1, self.d)
                out = torch.einsum("ntd,nhd->tnh", slots(v, n, norm), w).reshape(y.shape)
                return out if m.bias is None else out + m.bias
            return hook

        def enter(m, a):
            x = a[0] + delta
            nodes(x)
            return edit("resid", 0, x), *a[1:]

        def attention(j, attn, post):
            def hook(m, _, y):
                x = y[0] if isinstance(y, tuple) else y
                z = seen[attn.o_proj][0].unflatten(-1, (self.H, -1))
                w = attn.o_proj.weight.unflatten(-1, (self.H, -1))
                heads = torch.einsum("thc,dhc->htd", z, w)
                if post:                                # times this run's scalar for the heads' sum
                    heads = heads * self.ref.rms(heads.sum(0)) * (1 + post.weight)
                nodes(heads)
                x = edit("attn", j, x)
                return (x, *y[1:]) if isinstance(y, tuple) else x
            return hook

        def mlp(j):
            def hook(m, _, y):
                nodes(y)
                return edit("mlp", j, y)
            return hook

        def see(m, a):
            seen[m] = a[0]

        for block in net.model.layers:
            block.self_attn.pattern_site = lambda w: w
        handles.append(net.model.layers[self.layer].register_forward_pre_hook(enter))
        for j, block in enumerate(net.model.layers[self.layer:]):
            attn, v, norm = block.self_attn, j * self.per, self.ref.mlp_norm(block)
            post = block.post_attention_layernorm if self.ref.gemma else None
            for m in block.input_layernorm, norm, attn.o_proj:
                handles.append(m.register_forward_pre_hook(see))
            for m, first, n in ((attn.q_proj, v, self.H), (attn.k_proj, v + self.H, self.K),
                                (attn.v_proj, v + self.H + self.K, self.K)):
                handles.append(m.register_forward_hook(project(first, n, block.input_layernorm)))
            handles.append((post or attn).register_forward_hook(attention(j, attn, post)))
            handles.append(block.mlp.register_forward_pre_hook(
                lambda m, a, v=v, norm=norm: (slots(v + self.per - 1, 1, norm),)))
            last = block.post_feedforward_layernorm if self.ref.gemma else block.mlp
            handles.append(last.register_forward_hook(mlp(j)))
        handles.append(net.model.norm.register_forward_pre_hook(see))
        handles.append(net.lm_head.register_forward_pre_hook(
            lambda m, a: (slots(self.S - 1, 1, net.model.norm),)))
        handles.append(net.lm_head.register_forward_hook(lambda m, a, y: tape.update(raw=y[0])))
        try:
            tape["logits"] = net(torch.tensor([list(ids)])).logits[0]
        finally:
            for h in handles:
                h.remove()
        tape["node"] = torch.cat(tape["node"])
        assert len(tape["node"]) == self.U and sorted(tape["x"]) == list(range(self.S))
        return tape

    def gradients(self, ids, delta, steps, metric):
        """Means over the steps of dm/d(every site): resid, attn, mlp; pre and post by slot."""
        total = {}
        for i in range(steps):
            probes = {}

            def edit(site, at, x):
                if site == "node":
                    return x
                probes[site, at] = torch.zeros(x.shape, dtype=x.dtype, requires_grad=True)
                return x + probes[site, at]
            with torch.enable_grad():
                tape = self.run(ids, (i + 0.5) / steps * delta, edit)
                grads = torch.autograd.grad(metric(tape["raw"]), list(probes.values()))
            for key, g in zip(probes, grads):
                total[key] = total.get(key, 0) + g / steps
            by_slot = self.by_slot(dict(zip(probes, grads)))
            for v in range(self.S):                     # autograd against the formula of the norm
                norm, x = self.norm(v), tape["x"][v]
                g = by_slot["post"][v] * (norm.weight + self.ref.c["norm_offset"])
                r = self.ref.rms(x)
                pulled = r * g - r ** 3 / self.d * x * (x * g).sum(-1, keepdim=True)
                assert torch.allclose(pulled, by_slot["pre"][v], rtol=1e-8, atol=1e-11)
        return total | self.by_slot(total)

    def norm(self, v):
        j, kind = divmod(v, self.per)
        if v == self.S - 1:
            return self.ref.net.model.norm
        block = self.ref.net.model.layers[self.layer + j]
        return self.ref.mlp_norm(block) if kind == self.per - 1 else block.input_layernorm

    def by_slot(self, grads):
        """{"pre": [S, N, d], "post": ...}"""
        return {site: torch.cat([grads[k] for k in sorted(k for k in grads if k[0] == site)])
                for site in ("pre", "post")}

    def exact(self, ids, dest, change, metric):
        """m(patched) - m(dest) of every node [U] and every edge [S, U]: the pass with `dest` added,
        with change[u] added to a node's output or to what one slot sees of it."""
        def effect(site, at, i, x):
            def edit(s, a, y):
                if (s, a) != (site, at):
                    return y
                y = y.clone()
                y[i] += x
                return y
            return float(metric(self.run(ids, dest, edit)["raw"])) - start
        start = float(metric(self.run(ids, dest)["raw"]))
        node = [effect(*self.place(u), 0, change[u]) for u in range(self.U)]
        edge = torch.zeros(self.S, self.U, dtype=torch.float64)
        for v in range(self.S):
            j, kind = divmod(v, self.per)
            first = [t for t in (0, self.H, self.H + self.K, self.per - 1) if t <= kind][-1]
            for u in range(self.senders(v)):
                edge[v, u] = effect("pre", j * self.per + first, kind - first, change[u])
        return torch.tensor(node, dtype=torch.float64), edge

    def circuit(self, ids, delta, keep, base):
        """Raw logits of the steered run in which every edge outside the circuit carries base[u]."""
        behind = []

        def edit(site, i, x):
            if site == "node":
                behind.append(base[i:i + len(x)] - x)
            if site == "pre":
                gone = torch.cat(behind)
                assert all(self.senders(v) == len(gone) for v in range(i, i + len(x)))
                out = ~keep[i:i + len(x), :len(gone)]
                return x + torch.einsum("vu,utd->vtd", out.double(), gone)
            return x
        return self.run(ids, delta, edit)["raw"]


# ---- patch.txt ----------------------------------------------------------------------------------

def metric_of(kind, poi, src, dest):
    """m(raw logits), larger = closer to the source run."""
    y, y0 = src[poi].argmax(-1), dest[poi].argmax(-1)
    p, p0 = torch.softmax(src[poi], -1), torch.softmax(dest[poi], -1)

    def kl(a, z):
        return (a * (torch.log(a) - torch.log_softmax(z, -1))).sum(-1)

    def m(z):
        z, t = z[poi], range(len(poi))
        if kind == "logit":
            return (z[t, y] - z[t, y0]).mean()
        return (kl(p0, z) - (kl(p, z) if kind == "dirkl" else 0)).mean()
    return m


def bits(mask):
    return "".join("01"[int(x)] for x in mask)


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
           line("total", [y]), line("source", [m_src]), line("dest", [m_dest])]
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
    out = ["# Scores of nodes and edges, exact patching and circuits: see tools/oracle_patch.py."]
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
