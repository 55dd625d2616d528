"""The reference that steer.c is judged against: it writes tests/golden/*.txt.

    python tools/oracle.py [random box dim tokens split exact64 patch train]   writes these files (all)
    python tools/oracle.py --check random                          compares with the files on disk

The networks are transformers' own LlamaForCausalLM, Qwen2ForCausalLM and Gemma2ForCausalLM with eager
attention; every intervention is a hook on their modules. It was written from "What Drives Representation
Steering?" (arXiv 2604.08524) and the code published with it, and shares no code with steer.c.
Every number is float32 arithmetic unless the file's first lines say float64.

A golden file is a list of cases. A case is a list of lines "KEY VALUE...", closed by "end":
    case NAME
    model PATH | random SEED BASE d layers heads kv_heads head_dim ff vocab qkv_bias post_norms gelu tied
        window window_every norm_eps norm_offset attn_cap final_cap embed_scale query_scale, dtype TYPE
    tokens ID...            vector V...              add LAYER COEFF
    ablate                  keep K...                [3 * layers] by site, then block
    freeze qk|v|mlp         remove svv|mlp           at blocks >= LAYER of the line "add"
    logits POSITION V...    the whole vocabulary, after the final soft-cap
"""
import argparse
import pathlib
import sys
from collections import Counter, defaultdict

import numpy as np
import torch
import transformers
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

import binfile
from oracle_text import CHATS, LONG_S, WRITTEN, Text, strings

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
torch.set_num_threads(1)
torch.set_grad_enabled(False)


# ---- the reference networks ------------------------------------------------------------------------

def with_pattern_site(original):
    """transformers' eager attention, whose weights after the softmax can be read and replaced."""
    def attention(module, query, key, value, mask, **kw):
        values = modeling_llama.repeat_kv(value, module.num_key_value_groups)
        if query.dtype == torch.float64:            # the original rounds its softmax to float32
            cap, s = kw.get("softcap"), query @ modeling_llama.repeat_kv(
                key, module.num_key_value_groups).transpose(2, 3) * kw["scaling"]
            weights = torch.softmax((cap * torch.tanh(s / cap) if cap else s) + mask, -1)
            out = (weights @ values).transpose(1, 2).contiguous()
        else:
            out, weights = original(module, query, key, value, mask, **kw)
        edited = module.pattern_site(weights)
        if edited is not weights:
            out = (edited @ values).transpose(1, 2).contiguous()
        return out, edited
    return attention


for m in modeling_llama, modeling_qwen2, modeling_gemma2:
    m.eager_attention_forward = with_pattern_site(m.eager_attention_forward)


def keep_float64(net):
    """Replace what transformers computes in float32 whatever the model's type: norms and angles."""
    def norm(module):
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        offset = 1.0 if isinstance(module, modeling_gemma2.Gemma2RMSNorm) else 0.0
        return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (module.weight + offset)

    def angles(x, position_ids):
        a = position_ids[..., None].double() * rotary.inv_freq
        a = torch.cat((a, a), -1)
        return a.cos(), a.sin()
    for module in net.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm(module)
    rotary = net.model.rotary_emb
    rotary.forward = angles


class Reference:
    """One network of transformers with the weights of a model file, and hooks at the paper's sites."""

    def __init__(self, config, tensors, dtype=torch.float32):
        c = self.c = config
        self.dtype, self.layers, self.gemma = dtype, c["layers"], bool(c["post_norms"])
        common = dict(vocab_size=c["vocab"], hidden_size=c["d"], intermediate_size=c["ff"],
                      num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
                      num_key_value_heads=c["kv_heads"], head_dim=c["head_dim"], use_cache=False,
                      rms_norm_eps=c["norm_eps"], tie_word_embeddings=bool(c["tied"]),
                      max_position_embeddings=c["max_seq"], pad_token_id=None)
        if self.gemma:
            assert c["gelu"] and c["norm_offset"] == 1 and not c["qkv_bias"]
            every = c["window_every"]               # the last block of each group of `every` sees all
            slides = [bool(c["window"]) and b % every != every - 1 for b in range(c["layers"])]
            config = transformers.Gemma2Config(
                **common, attn_logit_softcapping=c["attn_cap"] or None,
                final_logit_softcapping=c["final_cap"] or None, sliding_window=c["window"] or 4096,
                layer_types=["sliding_attention" if s else "full_attention" for s in slides])
        else:
            assert not (c["gelu"] or c["norm_offset"] or c["attn_cap"] or c["final_cap"] or c["window"])
            assert c["embed_scale"] == 1
            family = transformers.Qwen2Config if c["qkv_bias"] else transformers.LlamaConfig
            config = family(**common)
        config._attn_implementation = "eager"
        family = {"gemma2": transformers.Gemma2ForCausalLM, "qwen2": transformers.Qwen2ForCausalLM,
                  "llama": transformers.LlamaForCausalLM}[config.model_type]
        net = self.net = family(config).eval().to(dtype)
        self.load(tensors)
        for block in net.model.layers:
            block.self_attn.scaling = c["query_scale"]
        freq = torch.tensor(np.asarray(tensors["rope_freq"]))
        assert net.model.rotary_emb.inv_freq.shape == freq.shape
        net.model.rotary_emb.inv_freq = freq.to(dtype)
        assert net.model.rotary_emb.attention_scaling == 1
        if self.gemma:
            net.model.embed_tokens.embed_scale = torch.tensor(c["embed_scale"], dtype=dtype)
        if dtype == torch.float64:
            keep_float64(net)
        self.gains = {"svv": [b.input_layernorm.weight + c["norm_offset"] for b in net.model.layers],
                      "mlp": [self.mlp_norm(b).weight + c["norm_offset"] for b in net.model.layers]}

    def mlp_norm(self, block):
        """The norm before the MLP; in Llama's code it is called post_attention_layernorm."""
        return block.pre_feedforward_layernorm if self.gemma else block.post_attention_layernorm

    def rms(self, x):
        """r(x) = 1 / sqrt(mean x^2 + eps)"""
        return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.c["norm_eps"])

    def load(self, tensors):
        """Give every parameter its tensor; a parameter or a tensor left over is an error."""
        names = {"wq": "self_attn.q_proj.weight", "bq": "self_attn.q_proj.bias",
                 "wk": "self_attn.k_proj.weight", "bk": "self_attn.k_proj.bias",
                 "wv": "self_attn.v_proj.weight", "bv": "self_attn.v_proj.bias",
                 "wo": "self_attn.o_proj.weight", "w_gate": "mlp.gate_proj.weight",
                 "w_up": "mlp.up_proj.weight", "w_down": "mlp.down_proj.weight",
                 "attn_norm": "input_layernorm.weight", "mlp_norm": "post_attention_layernorm.weight"}
        if self.gemma:                              # four norms a block, and other names for them
            names |= {"post_attn_norm": "post_attention_layernorm.weight",
                      "mlp_norm": "pre_feedforward_layernorm.weight",
                      "post_mlp_norm": "post_feedforward_layernorm.weight"}
        state = {}
        for name, a in tensors.items():
            kind, _, block = name.partition(".")
            if block:
                state[f"model.layers.{block}.{names[kind]}"] = a
            elif name != "rope_freq":
                state[{"embed": "model.embed_tokens.weight", "unembed": "lm_head.weight",
                       "final_norm": "model.norm.weight"}[name]] = a
        if self.c["tied"]:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        state = {k: torch.tensor(a, dtype=self.dtype) for k, a in state.items()}
        self.net.load_state_dict(state, strict=True)
        have = dict(self.net.named_parameters(remove_duplicate=False))
        assert have.keys() == state.keys() and all(torch.equal(have[k], a) for k, a in state.items())

    def run(self, ids, vector=None, add=None, ablate=None, freeze=(), remove=None, base=None):
        """One pass over one text: (logits [tokens, vocab], tape). A tape is {site: [tensor a block]}.

        add     (layer, coeff): h <- h + coeff * vector at the input of block `layer`, at all positions,
                template and BOS included (the paper's Eq. 1)
        ablate  [3 * layers] components to leave along the vector's direction; zeros: ablation to zero
        freeze  sites (values of SITE) that blocks >= layer read from the tape `base`, the unsteered
                run's on the same tokens (the paper's Table 1; its MLP row is `remove`, not this)
        remove  "svv" or "mlp": take the vector's direct image out of the value inputs (queries and
                keys keep it) or of the MLP inputs, in blocks >= layer (Table 1: SVV, MLP)
        """
        tape, handles, planned, fired = defaultdict(dict), [], Counter(), Counter()
        wanted = {"add": add is not None, "ablate": ablate is not None, remove: remove is not None}
        wanted = {k for k, on in (wanted | dict.fromkeys(freeze, True)).items() if on}
        layer, coeff = add or (0, 0.0)
        if vector is not None:
            v = torch.tensor(np.asarray(vector), dtype=self.dtype)
            unit = v / (v.norm() + 1e-8)

        def image(b, which):
            # The part of the norm's output that is linear in the vector. r is that of this run's own
            # residual, so the rescaling by the steered residual's larger norm stays.
            x = tape["attn_norm_in" if which == "svv" else "mlp_norm_in"][b]
            return coeff * (v * self.gains[which][b]) * self.rms(x)

        def edits(site, b):
            """The changes planned at one site of block b, in the order in which they act."""
            if add and site == "block_in" and b == layer:
                yield "add", lambda x: x + coeff * v
            if ablate is not None and site in ABLATED:
                keep = float(ablate[ABLATED.index(site) * self.layers + b])
                yield "ablate", lambda x: x - (x @ unit)[..., None] * unit + keep * unit
            if site in freeze and b >= layer:
                yield site, lambda x: base[site][b]
            if site == {"svv": "v_in", "mlp": "mlp_in"}.get(remove) and b >= layer:
                yield remove, lambda x: x - image(b, remove)

        def visitor(site, b):
            """A function that applies a site's changes to x and tapes what goes on from there."""
            changes = list(edits(site, b))
            planned.update(kind for kind, _ in changes)

            def visit(x):
                for kind, change in changes:
                    x = change(x)
                    fired[kind] += 1
                tape[site][b] = x
                return x
            return visit

        def at_input(site, b, module):
            visit = visitor(site, b)
            handles.append(module.register_forward_pre_hook(lambda m, a: (visit(a[0]), *a[1:])))

        def at_output(site, b, module):
            visit = visitor(site, b)
            handles.append(module.register_forward_hook(
                lambda m, a, y: (visit(y[0]), *y[1:]) if isinstance(y, tuple) else visit(y)))

        for b, block in enumerate(self.net.model.layers):
            attn = block.self_attn
            at_input("block_in", b, block)
            at_input("attn_norm_in", b, block.input_layernorm)
            at_output("q", b, attn.q_proj)
            at_output("k", b, attn.k_proj)
            at_input("v_in", b, attn.v_proj)
            at_output("v", b, attn.v_proj)
            attn.pattern_site = visitor("pattern", b)
            at_output("attn_out", b, attn)                       # before Gemma's post-norm
            at_input("mlp_norm_in", b, self.mlp_norm(block))
            at_input("mlp_in", b, block.mlp)
            at_output("mlp_out", b, block.mlp)                   # before Gemma's post-norm
            at_output("mlp_add", b, block.post_feedforward_layernorm if self.gemma else block.mlp)
        at_input("final", 0, self.net.model.norm)
        try:
            logits = self.net(torch.tensor([list(ids)])).logits[0]
        finally:
            for h in handles:
                h.remove()
        assert fired == planned and set(fired) == wanted, ("an edit did not fire", wanted, planned, fired)
        assert torch.isfinite(logits).all()
        return logits, tape


# Directional ablation acts where the authors' code does: the input of every block, the output of every
# attention module, the output of every MLP module (so on Gemma a post-norm's gain can bring some back).
ABLATED = ["block_in", "attn_out", "mlp_out"]
SITE = {"qk": "pattern", "v": "v", "mlp": "mlp_add"}           # frozen: QK and OV of Table 1, MLP outputs


def from_file(path, dtype=torch.float32):
    config, tokenizer, tensors, _, _ = binfile.read(ROOT / path)
    return Reference(config, tensors, dtype), tokenizer


# ---- random models ---------------------------------------------------------------------------------

def uniform(seed, kind, layer, n):
    """n doubles in [-1, 1) out of a hash of the element's place (splitmix64's finaliser)."""
    x = np.arange(n, dtype=np.uint64) ^ np.uint64((seed << 56) ^ (kind << 48) ^ (layer << 40))
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return 2.0 * ((z >> np.uint64(40)).astype(np.float64) * 2.0 ** -24) - 1.0


def stored(a, dtype):
    """A matrix as it comes back from a model file of this type (rows of odd length: bf16 for q8)."""
    ty = binfile.DTYPES[dtype]
    if a.ndim < 2 or ty == binfile.F32:
        return a
    if ty == binfile.Q8 and a.shape[1] % 32 == 0:
        raw = binfile.encode(a, binfile.Q8)
        q = np.frombuffer(raw, np.int8, a.size).reshape(a.shape[0], -1, 32).astype(np.float32)
        return (q * np.frombuffer(raw, np.float32, -1, a.size).reshape(a.shape[0], -1, 1)).reshape(a.shape)
    return binfile.from_bf16(np.frombuffer(binfile.encode(a, binfile.BF16), np.uint16)).reshape(a.shape)


def random_tensors(seed, base, c, dtype):
    out = {}
    for kind, layer, name, shape in binfile.tensor_list(c):
        u, what = uniform(seed, kind, layer, int(np.prod(shape))).reshape(shape), name.partition(".")[0]
        if what == "rope_freq":
            a = np.float64(base) ** (-2.0 * np.arange(shape[0]) / c["head_dim"])
        elif what == "embed":
            a = u * 1.0 / c["embed_scale"]
        elif len(shape) == 2:
            a = u * np.sqrt(3.0 / shape[1])
        else:
            a = 0.5 * u if what in ("bq", "bk", "bv") else (1.0 - c["norm_offset"]) + 0.25 * u
        out[name] = stored(a.astype(np.float32), dtype)
    return out


def sizes(d, layers, heads, kv_heads, head_dim, ff, vocab, **more):
    c = dict.fromkeys(binfile.CONFIG_INT, 0) | dict.fromkeys(binfile.CONFIG_FLT, 0.0)
    c |= dict(d=d, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ff=ff, vocab=vocab,
              max_seq=512, tied=1, norm_eps=1e-5, embed_scale=1.0, query_scale=head_dim ** -0.5) | more
    return c | {k: float(np.float32(c[k])) for k in binfile.CONFIG_FLT}


LLAMA = sizes(64, 4, 4, 2, 16, 176, 96)               # 176: w_down's rows can't be q8, so they are bf16
SMOL = sizes(576, 3, 9, 3, 64, 1536, 256)
QWEN = sizes(112, 3, 7, 1, 16, 200, 101, qkv_bias=1, norm_eps=1e-6)
GEMMA = sizes(96, 4, 4, 2, 32, 224, 128, post_norms=1, gelu=1, window=8, window_every=2, norm_eps=1e-6,
              norm_offset=1.0, attn_cap=2.0, final_cap=3.0, embed_scale=96 ** 0.5, query_scale=24 ** -0.5)
ALL = ["plain", "add", "ablate", "ablate-mean", "freeze-qk", "freeze-v", "freeze-mlp", "remove-svv",
       "remove-mlp"]
FEW = ["plain", "add", "freeze-v"]
# name: (seed, rope base, shape, weight type, tokens, steering layer, coefficient, cases). The caps of
# "gemma" are tight, so that leaving one out shows; those of "gemma-caps" are Gemma 2's own.
RANDOM = {"llama": (1, 1e4, LLAMA, "f32", 70, 1, 1.0, ALL),
          "smol": (2, 1e5, SMOL, "f32", 24, 1, -1.0, FEW),
          "smol-untied": (3, 1e5, SMOL | {"tied": 0}, "f32", 24, 0, 1.0, FEW),
          "qwen": (4, 1e6, QWEN, "f32", 33, 1, -0.75, ALL),
          "gemma": (5, 1e4, GEMMA, "f32", 40, 1, -1.5, ALL),
          "gemma-caps": (6, 1e4, GEMMA | {"attn_cap": 50.0, "final_cap": 30.0, "window": 0,
                                          "window_every": 0}, "f32", 20, 3, 1.0, FEW),
          "llama-bf16": (7, 1e4, LLAMA, "bf16", 20, 2, 1.0, FEW),
          "llama-q8": (8, 1e4, LLAMA, "q8", 20, 2, 1.0, FEW)}


def random_model(name, dtype=torch.float32):
    seed, base, c, weights, n, layer, coeff, which = RANDOM[name]
    numbers = " ".join(f"{c[k]:.9g}" for k in binfile.CONFIG_INT + binfile.CONFIG_FLT if k != "max_seq")
    ref = Reference(c, random_tensors(seed, base, c, weights), dtype)
    ids = np.random.RandomState(seed).randint(c["vocab"], size=n).tolist()
    return ref, ids, [f"random {seed} {base:.9g} {numbers}", f"dtype {weights}"], layer, coeff, which


# ---- cases -----------------------------------------------------------------------------------------

def line(key, values):
    return f"{key} " + " ".join(f"{float(x):.9g}" for x in values)


def far(a, b):
    """The largest difference, as a share of the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def make_vector(ref, ids, layer, seed):
    """A random direction half as long as the residual at the steered block, and components to keep.
    The length is rounded, so that the vector has the same bits on every machine."""
    rng = np.random.RandomState(1000 + seed)
    size = float(ref.run(ids)[1]["block_in"][layer][0].norm(dim=-1).mean()) / 2
    v, size = rng.standard_normal(ref.c["d"]), float(f"{size:.2g}")
    keep = rng.standard_normal(3 * ref.layers) * size / 2
    return (v / np.linalg.norm(v) * size).astype(np.float32), keep.astype(np.float32)


def interventions(ref, ids, vector, keep, add):
    """{case: (lines of the golden file, the case it must differ from, arguments of run)}"""
    base, (layer, coeff) = ref.run(ids)[1], add
    steer = [line("vector", vector), f"add {layer} {coeff:.9g}"]
    out = {"plain": ([], None, {}), "add": (steer, "plain", {"vector": vector, "add": add}),
           "ablate": ([line("vector", vector), "ablate"], "plain",
                      {"vector": vector, "ablate": np.zeros_like(keep)}),
           "ablate-mean": ([line("vector", vector), "ablate", line("keep", keep)], "ablate",
                           {"vector": vector, "ablate": keep})}
    for name, site in SITE.items():
        out[f"freeze-{name}"] = (steer + [f"freeze {name}"], "add",
                                 {"vector": vector, "add": add, "freeze": (site,), "base": base})
    for name in "svv", "mlp":
        out[f"remove-{name}"] = (steer + [f"remove {name}"], "add",
                                 {"vector": vector, "add": add, "remove": name})
    return out


def self_check(ref, ids, vector, add):
    """Identities that hold whatever the weights are. Each can fail, and says which one did."""
    layer, coeff = add
    plain, base = ref.run(ids)
    on = {"vector": vector, "add": add}
    steered, own = ref.run(ids, **on)
    every = tuple(SITE.values())
    tiny = 1e-5 if ref.dtype == torch.float32 else 1e-12

    def same(what, a, b, tol=tiny):
        assert far(a, b) <= tol, f"self-check: {what}: {far(a, b):.2g}"
    same("add with coefficient 0", ref.run(ids, vector=vector, add=(layer, 0.0))[0], plain, 0)
    for site in every:
        same(f"{site} frozen to its own run", ref.run(ids, **on, freeze=(site,), base=own)[0], steered)
    # The pattern follows from q and k, so freezing those two is freezing it.
    same("pattern against q and k", ref.run(ids, **on, freeze=("pattern",), base=base)[0],
         ref.run(ids, **on, freeze=("q", "k"), base=base)[0])
    # With patterns, values and MLP outputs frozen, nothing but the vector itself can change the residual.
    frozen = ref.run(ids, **on, freeze=every, base=base)[1]
    shift = coeff * torch.tensor(vector, dtype=ref.dtype)
    same("everything frozen", frozen["final"][0], base["final"][0] + shift)
    # At the steered block x = base + coeff * s. The norm's output, entry by entry gain * r(x) times x,
    # must be left with the base's share of it.
    for what, site, norm_in in ("svv", "v_in", "attn_norm_in"), ("mlp", "mlp_in", "mlp_norm_in"):
        x = own[norm_in][layer]
        same(f"{what} removed", ref.run(ids, **on, remove=what)[1][site][layer],
             own[site][layer] * (x - shift) / x)
    # The sites are where they are said to be: what attention and MLP add up to is the residual.
    for b, block in enumerate(ref.net.model.layers):
        attn = base["attn_out"][b]
        attn = block.post_attention_layernorm(attn) if ref.gemma else attn
        same("attention's site", base["block_in"][b] + attn, base["mlp_norm_in"][b])
        out = base["block_in"][b + 1] if b + 1 < ref.layers else base["final"][0]
        same("the MLP's site", base["mlp_norm_in"][b] + base["mlp_add"][b], out)
    # A sliding block attends to the last `window` tokens, itself among them, and no further.
    for b, pattern in base["pattern"].items():
        slides = ref.c["window"] and b % ref.c["window_every"] != ref.c["window_every"] - 1
        span = min(ref.c["window"], len(ids)) if slides else len(ids)
        reach = [float(pattern[0, 0].diagonal(-i).sum()) for i in range(len(ids))]
        assert reach[span - 1] > 0 and not any(reach[span:]), "self-check: window"
    # After an ablation the direction's component is what was to be kept, at all three sites.
    keep = np.arange(1, 3 * ref.layers + 1) / 7.0
    tape = ref.run(ids, vector=vector, ablate=keep)[1]
    unit = torch.tensor(vector, dtype=ref.dtype) / float(np.linalg.norm(vector))
    for i, k in enumerate(keep):
        x = tape[ABLATED[i // ref.layers]][i % ref.layers][0]
        left = float(((x @ unit) - k).abs().max() / x.norm(dim=-1).max())
        assert left < max(10 * tiny, 1e-7), f"self-check: ablation leaves {left:.2g}"   # 1e-8: of vhat


def cases(ref, name, head, ids, layer, coeff, which, positions, seed, exact=None):
    """The lines of every case of one model. `exact` is the same model in float64: the reference's own
    rounding must be small against the 1e-4 that steer.c is allowed."""
    vector, keep = make_vector(ref, ids, layer, seed)
    self_check(ref, ids, vector, (layer, coeff))
    plans = interventions(ref, ids, vector, keep, (layer, coeff))
    precise = interventions(exact, ids, vector, keep, (layer, coeff)) if exact else {}
    out, logits, worst = [], {}, 0.0
    for case, (lines, other, arguments) in plans.items():
        y = logits[case] = ref.run(ids, **arguments)[0]
        if other:
            assert far(y[-1], logits[other][-1]) > 1e-3, f"{name} {case} changes nothing"
        if exact:
            z = exact.run(ids, **precise[case][2])[0]
            worst = max(worst, float((y - z).abs().max()))
            assert far(y, z) < 1e-5, f"{name} {case}: float32 is {far(y, z):.2g} away from float64"
        if case in which:
            out += [f"case {name}/{case}", *head, "tokens " + " ".join(map(str, ids)), *lines]
            out += [line(f"logits {p}", y[p]) for p in positions] + ["end"]
    if exact:
        print(f"  {name}: float32 is off by at most {worst:.1e}, logits go to {float(y.abs().max()):.3g}")
    return out


def random_group():
    out = ["# Random weights, made from a seed: see random_tensors() in tools/oracle.py."]
    for name in RANDOM:
        ref, ids, head, layer, coeff, which = random_model(name)
        exact = random_model(name, torch.float64)[0]
        positions = sorted({3, len(ids) // 2, len(ids) - 1})
        out += cases(ref, name, head, ids, layer, coeff, which, positions, RANDOM[name][0], exact)
    return out


def exact64_group():
    ref, ids, head, layer, coeff, _ = random_model("gemma", torch.float64)
    return ["# The same in float64 (weights, vector and inputs are float32): what float32 loses.",
            *cases(ref, "gemma-float64", head, ids, layer, coeff, ["add", "freeze-v"], [len(ids) - 1], 5)]


# ---- the models in the box -------------------------------------------------------------------------

BOX = {"weights/tiny-llama.bin": 1.0, "weights/tiny-gemma.bin": -1.0}       # coefficient
SPLITS = ["harmful-train", "harmless-train", "harmful-val", "harmless-val"]


def prompts(name, n):
    """[(prompt, task)]: the first n lines of weights/NAME.txt."""
    lines = (ROOT / "weights" / f"{name}.txt").read_text(encoding="utf-8").split("\n")
    return [tuple(s.split("\t")) for s in lines[:n]]


def box_group():
    out = ["# The models in the box on a request and the beginning of an answer."]
    for path, coeff in BOX.items():
        (ref, t), exact = from_file(path), from_file(path, torch.float64)[0]
        request, task = prompts("harmful-val", 1)[0]
        ids = Text(t).chat(request, f"Sure! Here is how to {task}. First, gather what you need. Then, work "
                           "slowly and carefully. Finally, check the result twice and clean up. Then, rest")
        assert not ref.c["window"] or len(ids) > ref.c["window"] + 4
        out += cases(ref, pathlib.Path(path).stem, [f"model {path}"], ids, ref.layers // 3, coeff, ALL,
                     [3, len(ids) - 1], 9, exact)
    return out


def dim_group():
    out = ["# Difference in means, harmful minus harmless, on the first lines of the train prompts (float64):",
           "# dim LAYER POSITION V...   score LAYER POSITION RS_BYPASS RS_INDUCE KL of that vector on the",
           "# first 12 lines of the val prompts   base RS_HARMFUL RS_HARMLESS of the unsteered model there"]
    for path in BOX:
        ref, t = from_file(path, torch.float64)
        text = Text(t)
        ids = {f: [text.chat(p) for p, _ in prompts(f, 24 if "train" in f else 12)] for f in SPLITS}
        end = next(i for i, two in enumerate(zip(*(text.chat(s)[::-1] for s in "xy"))) if two[0] != two[1])
        assert len({tuple(i[-end:]) for f in SPLITS for i in ids[f]}) == 1, "the template's end varies"
        tapes = {f: [ref.run(i)[1]["block_in"] for i in ids[f]] for f in SPLITS[:2]}

        def mean(f, b):
            return sum(tape[b][0, -end:] for tape in tapes[f]) / len(tapes[f])

        def last(f, **plan):
            """The distributions of the first answer token."""
            return [torch.softmax(ref.run(i, **plan)[0][-1], -1) for i in ids[f]]

        def score(ps):
            """Mean of ln P_R - ln(1 - P_R), P_R the probability of a token that begins a refusal."""
            r = torch.stack([p[t["refusal"]].sum() for p in ps])
            return float((torch.log(r + 1e-8) - torch.log(1 - r + 1e-8)).mean())

        def kl(p, q):
            return float((p * (torch.log(p + 1e-6) - torch.log(q + 1e-6))).sum())
        harmful, harmless = last("harmful-val"), last("harmless-val")
        out += [f"case dim/{pathlib.Path(path).stem}", f"model {path}", f"prompts {len(ids[SPLITS[0]])}",
                line("base", [score(harmful), score(harmless)])]
        for b in 1, ref.layers // 2, ref.layers - 1:      # at block 0 all of the vectors are zero
            v = (mean("harmful-train", b) - mean("harmless-train", b)).numpy()
            for i, s in zip(range(-end, 0), v):
                bypass = score(last("harmful-val", vector=s, add=(b, -1.0)))
                induce = score(last("harmless-val", vector=s, add=(b, 1.0)))
                ablated = last("harmless-val", vector=s, ablate=np.zeros(3 * ref.layers))
                out += [line(f"dim {b} {i}", s), line(f"score {b} {i}", [
                    bypass, induce, sum(map(kl, harmless, ablated)) / len(ablated)])]
        out.append("end")
    return out


def tokens_group():
    t = binfile.read(ROOT / "weights/tiny-llama.bin", tensors=False)[1]
    out = ["# Token ids by the `tokenizers` library, vocabulary and merges of weights/tiny-llama.bin:",
           "# rule N; then text HEXBYTES, or chat HEXBYTES for the template around it; then ids ID..."]

    def entry(key, s, ids):
        out.extend([f"{key} {s.encode().hex()}", " ".join(map(str, ["ids", *ids]))])
    for rule in 1, 2:
        text = Text(t, rule)
        out.append(f"rule {rule}")
        for s in strings([p for f in SPLITS for p, _ in prompts(f, 6)]):
            ids = text.plain(s)
            assert b"".join(t["tokens"][i] for i in ids) == s.encode()
            entry("text", s, ids)
    text = Text(t)
    out.append(f"rule {t['pretok']}")
    for s in [*CHATS, *(s for s in WRITTEN if "<" in s), *(p for p, _ in prompts("harmful-test", 9))]:
        entry("chat", s, text.chat(s))
    return out


def split_group():
    """The pre-tokenizer alone. The small vocabulary has no merge across the borders where the two rules
    differ, so that tokens.txt can't tell them apart."""
    out = ["# text HEXBYTES, then for each rule the lengths in bytes of the pieces that it cuts the text into",
           "# (GPT-2 with single digits, Qwen2): rule1 N...   rule2 N..."]
    t, different = binfile.read(ROOT / "weights/tiny-llama.bin", tensors=False)[1], 0
    rules = [Text(t, rule).tok.pre_tokenizer for rule in (1, 2)]
    for s in strings([]) + LONG_S:
        cut = [[len(piece) for piece, _ in rule.pre_tokenize_str(s)] for rule in rules]
        assert all(sum(n) == len(s.encode()) for n in cut)
        different += cut[0] != cut[1]
        out += [f"text {s.encode().hex()}"] + [line(f"rule{i + 1}", n) for i, n in enumerate(cut)]
    assert different > 50
    return out


# ---- files -----------------------------------------------------------------------------------------

GROUPS = {"random": random_group, "box": box_group, "dim": dim_group, "tokens": tokens_group,
          "split": split_group, "exact64": exact64_group}


def differences(old, new, tolerance):
    """Compare two lists of lines: words as they are, numbers within a share of the line's largest."""
    if len(old) != len(new):
        yield f"{len(old)} lines instead of {len(new)}"
    for i, (a, b) in enumerate(zip(old, new), 1):
        if a == b:
            continue
        try:
            x, y = (np.array([float(w) for w in s.split()[1:]]) for s in (a, b))
            same = a.split()[0] == b.split()[0] and np.abs(x - y).max() <= tolerance * np.abs(y).max()
        except ValueError:
            same = False
        if not same:
            yield f"line {i}: {a[:60]} ... but now {b[:60]} ..."


def main():
    sys.modules.setdefault("oracle", sys.modules["__main__"])      # which is what oracle_patch imports
    from oracle_patch import patch_group
    from oracle_train import train_group
    GROUPS.update(patch=patch_group, train=train_group)
    p = argparse.ArgumentParser(description="Write or check tests/golden/*.txt.")
    p.add_argument("groups", nargs="*", default=list(GROUPS), metavar=" ".join(GROUPS))
    p.add_argument("--check", action="store_true", help="compare with the files on disk, write nothing")
    p.add_argument("--tolerance", type=float, default=5e-6,
                   help="of --check, relative to a line's largest number; PyTorch's float32 sums alone "
                   "differ by up to 2e-6 from one kind of processor to another")
    a = p.parse_args()
    if set(a.groups) - set(GROUPS):
        p.error(f"no such group: {' '.join(set(a.groups) - set(GROUPS))}; there are {' '.join(GROUPS)}")
    bad = 0
    for g in a.groups:
        path, text = GOLDEN / f"{g}.txt", GROUPS[g]()
        if a.check:
            wrong = list(differences(path.read_text().splitlines(), text, a.tolerance))
            bad += len(wrong)
            for w in [*wrong[:5], f"{len(wrong)} lines differ of {len(text)}"]:
                print(f"{path.name}: {w}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(text) + "\n")
            print(f"{path.name}: {len(text)} lines, {path.stat().st_size} bytes")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
