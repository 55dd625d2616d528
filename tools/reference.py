"""The reference that steer.c is judged against: networks of transformers with hooks at the paper's sites.

The networks are transformers' own causal models of Llama, Mistral, Qwen2, Qwen3 and Gemma 1 to 3 with eager
attention; every intervention is a hook on their modules. It was written from "What Drives Representation
Steering?" (arXiv 2604.08524) and the code published with it, and shares no code with steer.c.
Imports binfile.py alone; golden_*.py, parity.py, versus_torch.py and test_export.py import it.
"""
import pathlib
import warnings
from collections import Counter, defaultdict

import numpy as np
import torch
import transformers
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

import binfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


# ---- the networks ----------------------------------------------------------------------------------

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
        site = getattr(module, "pattern_site", None)         # set by Reference and Graph
        edited = site(weights) if site else weights
        if edited is not weights:
            out = (edited @ values).transpose(1, 2).contiguous()
        return out, edited
    return attention


for m in (modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3, modeling_gemma, modeling_gemma2,
          modeling_gemma3):
    m.eager_attention_forward = with_pattern_site(m.eager_attention_forward)


def keep_float64(net):
    """Replace what transformers computes in float32 whatever the model's type: norms and angles."""
    def norm(module):
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        offset = 1.0 if type(module).__name__.startswith("Gemma") else 0.0
        return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (module.weight + offset)

    def angles(x, position_ids, layer_type=None):            # Gemma 3: one a kind of block
        freq = rotary.inv_freq if layer_type is None else getattr(rotary, f"{layer_type}_inv_freq")
        a = position_ids[..., None].double() * freq
        a = torch.cat((a, a), -1)
        return a.cos(), a.sin()
    for module in net.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm(module)
    rotary = net.model.rotary_emb
    rotary.forward = angles


WEIGHTS = {"wq": "self_attn.q_proj.weight", "bq": "self_attn.q_proj.bias",
           "wk": "self_attn.k_proj.weight", "bk": "self_attn.k_proj.bias",
           "wv": "self_attn.v_proj.weight", "bv": "self_attn.v_proj.bias",
           "wo": "self_attn.o_proj.weight", "w_gate": "mlp.gate_proj.weight",
           "w_up": "mlp.up_proj.weight", "w_down": "mlp.down_proj.weight",
           "attn_norm": "input_layernorm.weight", "mlp_norm": "post_attention_layernorm.weight",
           "q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight"}
GEMMA_WEIGHTS = WEIGHTS | {                         # four norms a block, and other names for them
    "post_attn_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight", "post_mlp_norm": "post_feedforward_layernorm.weight"}
TOP = {"embed": "model.embed_tokens.weight", "unembed": "lm_head.weight", "final_norm": "model.norm.weight"}


def network(c, tensors, dtype=torch.float32, attention="eager"):
    """The model of a .bin as transformers' LlamaForCausalLM, Qwen2ForCausalLM and so on. Every parameter
    has its tensor, or it is an error; float32 weights are not copied."""
    family = ("Gemma2" if c["post_norms"] else "Gemma" if c["gelu"] else "Qwen2" if c["qkv_bias"] else
              "Mistral" if c["window"] else "Llama")
    if c.get("qk_norm"):
        family = "Gemma3" if c["post_norms"] else "Qwen3"
    gemma, four_norms = family.startswith("Gemma"), family in ("Gemma2", "Gemma3")
    options = dict(vocab_size=c["vocab"], hidden_size=c["d"], intermediate_size=c["ff"],
                   num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
                   num_key_value_heads=c["kv_heads"], head_dim=c["head_dim"], use_cache=attention != "eager",
                   rms_norm_eps=c["norm_eps"], tie_word_embeddings=bool(c["tied"]),
                   max_position_embeddings=c["max_seq"], attn_implementation=attention,
                   bos_token_id=None, eos_token_id=None, pad_token_id=None)
    if four_norms:
        assert c["gelu"] and not c["qkv_bias"]
        every = c["window_every"]                   # the last block of each group of `every` sees all
        slides = [bool(c["window"]) and b % every != every - 1 for b in range(c["layers"])]
        options |= dict(attn_logit_softcapping=c["attn_cap"] or None,
                        final_logit_softcapping=c["final_cap"] or None,
                        sliding_window=c["window"] or c["max_seq"],
                        layer_types=["sliding_attention" if s else "full_attention" for s in slides])
    else:
        assert not (c["attn_cap"] or c["final_cap"])
        assert gemma or not c["norm_offset"] and c["embed_scale"] == 1
        assert not c["window"] or family == "Mistral" and c["window_every"] > c["layers"]   # in every block
    if family == "Mistral":
        options |= dict(sliding_window=c["window"])
    state, names = {}, GEMMA_WEIGHTS if four_norms else WEIGHTS
    for name, a in tensors.items():
        kind, _, block = name.partition(".")
        if gemma and "norm" in kind and c["norm_offset"] != 1:
            a = a + np.float32(c["norm_offset"] - 1)         # transformers adds 1
        if kind not in ("rope_freq", "rope_local"):
            key = f"model.layers.{block}.{names[kind]}" if block else TOP[kind]
            state[key] = torch.from_numpy(np.asarray(a)).to(dtype)
    if c["tied"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):                               # no memory, no random weights
        config = getattr(transformers, family + ("TextConfig" if family == "Gemma3" else "Config"))(**options)
        net = getattr(transformers, family + "ForCausalLM")(config).to(dtype).eval()
    net.load_state_dict(state, strict=True, assign=True)
    net.tie_weights()
    have = dict(net.named_parameters(remove_duplicate=False))
    assert have.keys() == state.keys() and all(torch.equal(have[k], a) for k, a in state.items())
    freq = torch.from_numpy(np.asarray(tensors["rope_freq"])).to(dtype)
    rotary = net.model.rotary_emb
    if family == "Gemma3":
        local = torch.from_numpy(np.asarray(tensors.get("rope_local", tensors["rope_freq"]))).to(dtype)
        assert rotary.full_attention_inv_freq.shape == freq.shape
        rotary.full_attention_inv_freq, rotary.sliding_attention_inv_freq = freq, local
    else:
        assert rotary.inv_freq.shape == freq.shape and rotary.attention_scaling == 1
        rotary.inv_freq = freq
    for block in net.model.layers:
        block.self_attn.scaling = c["query_scale"]
    if gemma:
        net.model.embed_tokens.embed_scale = torch.tensor(c["embed_scale"], dtype=dtype)
    if dtype == torch.float64:
        keep_float64(net)
    return net.requires_grad_(False)


class Reference:
    """One network of transformers with the weights of a model file, and hooks at the paper's sites."""

    def __init__(self, config, tensors, dtype=torch.float32):
        c = self.c = config
        self.dtype, self.layers, self.gemma = dtype, c["layers"], bool(c["post_norms"])
        net = self.net = network(c, tensors, dtype)
        self.offset = 1.0 if c["gelu"] else 0.0              # that transformers adds to a gain of Gemma's
        self.gains = {"svv": [b.input_layernorm.weight + self.offset for b in net.model.layers],
                      "mlp": [self.mlp_norm(b).weight + self.offset for b in net.model.layers]}

    def mlp_norm(self, block):
        """The norm before the MLP; in Llama's code it is called post_attention_layernorm."""
        return block.pre_feedforward_layernorm if self.gemma else block.post_attention_layernorm

    def rms(self, x):
        """r(x) = 1 / sqrt(mean x^2 + eps)"""
        return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.c["norm_eps"])

    def run(self, ids, vector=None, add=None, ablate=None, freeze=(), remove=None, base=None, more=(), at={}):
        """One pass over one text: (logits [tokens, vocab], tape). A tape is {site: [tensor a block]}.

        add     (layer, coeff): h <- h + coeff * vector at the input of block `layer`, at all positions,
                template and BOS included (the paper's Eq. 1)
        ablate  [3 * layers] components to leave along the vector's direction; zeros: ablation to zero
        freeze  sites (values of SITE) that blocks >= layer read from the tape `base`, the unsteered
                run's on the same tokens (the paper's Table 1; its MLP row is `remove`, not this)
        remove  "svv" or "mlp": take the vector's direct image out of the value inputs (queries and
                keys keep it) or of the MLP inputs, in blocks >= layer (Table 1: SVV, MLP)
        more    [(layer, coeff, vector, (from, to))]: vectors that are added besides
        at      {edit: (from, to)}: that edit acts at positions from <= t < to only, "add", "ablate",
                a site of `freeze` (a pattern's position is the query's) or `remove`'s
        """
        tape, handles, planned, fired = defaultdict(dict), [], Counter(), Counter()
        wanted = {"add": add is not None, "ablate": ablate is not None, remove: remove is not None,
                  "more": bool(more)}
        wanted = {k for k, on in (wanted | dict.fromkeys(freeze, True)).items() if on}
        layer, coeff = add or (0, 0.0)
        if vector is not None:
            v = torch.tensor(np.asarray(vector), dtype=self.dtype)
            unit = v / (v.norm() + 1e-8)

        def rows(kind, span=None):
            """Where an edit acts, [tokens, 1]: positions are the last dimension but one at every site."""
            first, end = span or at.get(kind, (0, len(ids)))
            t = torch.arange(len(ids))[:, None]
            return (t >= first) & (t < end)

        def image(b, which):
            # The part of the norm's output that is linear in the vector. r is that of this run's own
            # residual, so the rescaling by the steered residual's larger norm stays.
            x = tape["attn_norm_in" if which == "svv" else "mlp_norm_in"][b]
            added = rows("add") * coeff * v
            for block, c, other, span in more:
                if block <= b:
                    added = added + rows("more", span) * c * torch.tensor(other, dtype=self.dtype)
            return added * self.gains[which][b] * self.rms(x)

        def edits(site, b):
            """The changes planned at one site of block b, in the order in which they act."""
            if add and site == "block_in" and b == layer:
                yield "add", lambda x: x + coeff * v
            for block, c, other, span in more:
                if site == "block_in" and b == block:
                    shift = rows("more", span) * c * torch.tensor(other, dtype=self.dtype)
                    yield "more", lambda x, shift=shift: x + shift
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
                    x = torch.where(rows(kind), change(x), x)
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
        if what in ("rope_freq", "rope_local"):
            a = np.float64(base if what == "rope_freq" else LOCAL_BASE) ** (-2.0 * np.arange(shape[0]) / c["head_dim"])
        elif what == "embed":
            a = u * 1.0 / c["embed_scale"]
        elif len(shape) == 2:
            a = u * np.sqrt(3.0 / shape[1])
        else:
            a = 0.5 * u if what in ("bq", "bk", "bv") else (1.0 - c["norm_offset"]) + 0.25 * u
        out[name] = stored(a.astype(np.float32), dtype)
    return out


LOCAL_BASE = 10.0                             # of blocks with a window, where they have a rope of their own


def sizes(d, layers, heads, kv_heads, head_dim, ff, vocab, **more):
    c = dict.fromkeys(binfile.CONFIG_INT, 0) | dict.fromkeys(binfile.CONFIG_FLT, 0.0)
    c |= dict.fromkeys(binfile.CONFIG_MORE, 0)
    c |= dict(d=d, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ff=ff, vocab=vocab,
              max_seq=512, tied=1, norm_eps=1e-5, embed_scale=1.0, query_scale=head_dim ** -0.5) | more
    return c | {k: float(np.float32(c[k])) for k in binfile.CONFIG_FLT}


def random_reference(seed, base, c, weights, n, dtype):
    """(network, its lines in a golden file, n random tokens)"""
    keys = [k for k in binfile.CONFIG_INT + binfile.CONFIG_FLT if k != "max_seq"]
    keys += binfile.CONFIG_MORE if any(c[k] for k in binfile.CONFIG_MORE) else []
    numbers = " ".join(f"{c[k]:.9g}" for k in keys)
    ref = Reference(c, random_tensors(seed, base, c, weights), dtype)
    ids = np.random.RandomState(seed).randint(c["vocab"], size=n).tolist()
    return ref, [f"random {seed} {base:.9g} {numbers}", f"dtype {weights}"], ids


# ---- what the golden files share -------------------------------------------------------------------

BOX = {"weights/tiny-llama.bin": 1.0, "weights/tiny-gemma.bin": -1.0}       # coefficient
SPLITS = ["harmful-train", "harmless-train", "harmful-val", "harmless-val"]


def prompts(name, n):
    """[(prompt, task)]: the first n lines of weights/NAME.txt."""
    lines = (ROOT / "weights" / f"{name}.txt").read_text(encoding="utf-8").split("\n")
    return [tuple(s.split("\t")) for s in lines[:n]]


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
