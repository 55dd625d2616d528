"""The reference for circuits: scores of nodes and edges, exact patching, circuits run.

PyTorch's autograd, meant for float64, on the networks of reference.py, written from the paper
(2604.08524) and the code published with it. How nodes and slots are numbered is said at class Graph.
"""
import torch

from reference import far, random_reference, sizes

# name: (seed, rope base, shape, tokens, prompt tokens)
FAMILY = {
    "llama": (31, 1e4, sizes(16, 4, 4, 2, 8, 32, 60, tied=0), 8, 4),
    "qwen": (32, 1e6, sizes(20, 3, 4, 2, 6, 36, 61, qkv_bias=1, norm_eps=1e-6), 8, 4),
    "gemma": (33, 1e4, sizes(20, 3, 4, 2, 8, 28, 57, post_norms=1, gelu=1, window=4, window_every=2,
                             norm_eps=1e-6, norm_offset=1.0, attn_cap=2.0, final_cap=3.0,
                             embed_scale=20 ** 0.5, query_scale=6 ** -0.5), 9, 4),
    "gemma1": (37, 1e4, sizes(20, 3, 4, 2, 8, 28, 57, gelu=1, norm_eps=1e-6, norm_offset=1.0,
                              embed_scale=20 ** 0.5), 8, 4),
    "mistral": (38, 1e4, sizes(16, 4, 4, 2, 8, 32, 60, tied=0, window=4, window_every=5), 9, 4),
    "qwen3": (34, 1e6, sizes(20, 3, 4, 2, 6, 36, 61, norm_eps=1e-6, qk_norm=1), 8, 4),
    "gemma3": (36, 1e4, sizes(20, 4, 4, 2, 8, 28, 57, post_norms=1, gelu=1, window=4, window_every=3,
                              norm_eps=1e-6, norm_offset=1.0, embed_scale=20 ** 0.5,
                              query_scale=6 ** -0.5, qk_norm=1, local_rope=1), 9, 4)}

def family(name):
    """(network, its lines in the golden file, random tokens, prompt tokens)"""
    seed, base, c, n, p = FAMILY[name]
    return *random_reference(seed, base, c, "f32", n, torch.float64), p


def close(what, a, b, tolerance=1e-9):
    assert far(a, b) <= tolerance, f"self-check: {what}: {far(a, b):.2g}"


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
                g = by_slot["post"][v] * (norm.weight + self.ref.offset)
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


def metric_of(kind, poi, src, dest):
    """m(raw logits), larger = closer to the source run."""
    y, y0 = src[poi].argmax(-1), dest[poi].argmax(-1)
    logp, logp0 = torch.log_softmax(src[poi], -1), torch.log_softmax(dest[poi], -1)

    def kl(loga, z):                          # of a run from itself it is 0, to the last bit
        return (loga.exp() * (loga - torch.log_softmax(z, -1))).sum(-1)

    def m(z):
        z, t = z[poi], range(len(poi))
        if kind == "logit":
            return (z[t, y] - z[t, y0]).mean()
        return (kl(logp0, z) - (kl(logp, z) if kind == "dirkl" else 0)).mean()
    return m


def bits(mask):
    return "".join("01"[int(x)] for x in mask)
