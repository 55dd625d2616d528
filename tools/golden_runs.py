"""Forward passes under every intervention (random.txt, box.txt, exact64.txt), under interventions at some
positions and in several blocks (where.txt), vectors with their scores (dim.txt), and vectors of
contrasting system prompts and responses (means.txt).

A golden file is a list of cases. A case is a list of lines "KEY VALUE...", closed by "end":
    case NAME
    model PATH | random SEED BASE d layers heads kv_heads head_dim ff vocab qkv_bias post_norms gelu tied
        window window_every norm_eps norm_offset attn_cap final_cap embed_scale query_scale
        [qk_norm local_rope], dtype TYPE
    tokens ID...            vector V...              add LAYER COEFF
    ablate                  keep K...                [3 * layers] by site, then block
    freeze qk|v|mlp         remove svv|mlp           at blocks >= LAYER of the line "add"
    logits POSITION V...    the whole vocabulary, after the final soft-cap
In where.txt there are for a plan's edits, instead:
    prompt N                its tokens; the others are the answer
    edit KIND WHAT LAYER PART FROM TO COEFF     KIND add ablate freeze remove; WHAT 1 or 2, the vector,
                            or what is frozen or removed; PART all, prompt or answer; in the answer
                            positions count from its first; TO 0: to the end
"""
import pathlib

import numpy as np
import torch

from reference import (ABLATED, BOX, SITE, SPLITS, far, from_file, line, make_vector, prompts,
                       random_reference, sizes)
from reference_text import Text

# ---- random models ---------------------------------------------------------------------------------

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
          "gemma1": (11, 1e4, sizes(96, 3, 4, 1, 32, 224, 128, gelu=1, norm_eps=1e-6, norm_offset=1.0,
                                    embed_scale=96 ** 0.5), "f32", 24, 1, -1.5, ALL),
          "mistral": (12, 1e4, LLAMA | {"window": 8, "window_every": 5}, "f32", 40, 1, 1.0, ALL),
          "qwen3": (9, 1e6, LLAMA | {"head_dim": 24, "query_scale": float(np.float32(24 ** -0.5)), "qk_norm": 1},
                    "f32", 24, 1, 1.0, ALL),
          "gemma3": (10, 1e4, GEMMA | {"attn_cap": 0.0, "final_cap": 0.0, "window": 6, "window_every": 3,
                                       "qk_norm": 1, "local_rope": 1}, "f32", 24, 1, -1.5, ALL),
          "llama-q8": (8, 1e4, LLAMA, "q8", 20, 2, 1.0, FEW)}

def random_model(name, dtype=torch.float32):
    seed, base, c, weights, n, layer, coeff, which = RANDOM[name]
    ref, head, ids = random_reference(seed, base, c, weights, n, dtype)
    return ref, ids, head, layer, coeff, which


# ---- cases -----------------------------------------------------------------------------------------

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
    out = ["# Random weights, made from a seed: see random_tensors() in tools/reference.py."]
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


def where_cases(ref, ids, n, layer, coeff, second):
    """{case: ([edit], arguments of run)}; an edit is (kind, what, layer, part, from, to)."""
    base, end = ref.run(ids)[1], {"all": len(ids), "prompt": n, "answer": len(ids)}

    def span(part, first, to):
        """Of absolute positions."""
        start = n if part == "answer" else 0
        return start + first, min(end[part], start + to) if to else end[part]
    places = [("prompt", 0, 0), ("answer", 0, 0), ("answer", 1, 4), ("all", 5, n + 3), ("prompt", n - 2, 0)]
    add, out = ("add", 1, layer, "all", 0, 0), {}
    steer = {"add": (layer, coeff)}
    for i, place in enumerate(places):
        out[f"add-{i}"] = [("add", 1, layer, *place)], steer | {"at": {"add": span(*place)}}
        for what, site in SITE.items() if i in (0, 1, 3) else ():
            out[f"freeze-{what}-{i}"] = ([add, ("freeze", what, layer, *place)], steer | {
                "freeze": (site,), "base": base, "at": {site: span(*place)}})
        for what in ("svv", "mlp") if i in (0, 1, 2) else ():
            out[f"remove-{what}-{i}"] = ([add, ("remove", what, layer, *place)],
                                         steer | {"remove": what, "at": {what: span(*place)}})
    for i in 0, 1:
        out[f"ablate-{i}"] = ([("ablate", 1, 0, *places[i])],
                              {"ablate": np.zeros(3 * ref.layers), "at": {"ablate": span(*places[i])}})
    # Two vectors in two blocks, each at positions of its own; and a freeze and a removal on top.
    two, steer = ("add", 2, layer + 1, *places[3]), steer | {"more": [(layer + 1, -coeff, second, span(*places[3]))]}
    out["two"] = [("add", 1, layer, *places[0]), two], steer | {"at": {"add": span(*places[0])}}
    out["two-frozen"] = ([add, two, ("freeze", "v", layer, *places[1])],
                         steer | {"freeze": ("v",), "base": base, "at": {"v": span(*places[1])}})
    out["two-removed"] = ([("add", 1, layer, *places[1]), two, ("remove", "svv", layer, "all", 0, 0)],
                          steer | {"remove": "svv", "at": {"add": span(*places[1])}})
    return out


def where_group():
    out = ["# Edits at some positions and in several blocks, in float64 (weights, vectors and inputs are float32)."]
    for name in "qwen", "gemma":
        ref, ids, head, layer, coeff, _ = random_model(name, torch.float64)
        n = len(ids) * 3 // 5
        vectors = [make_vector(ref, ids, layer, RANDOM[name][0] + 20 * k)[0] for k in range(2)]
        plans = where_cases(ref, ids, n, layer, coeff, vectors[1])
        plain, logits = ref.run(ids)[0], {}
        for case, (edits, arguments) in plans.items():
            y = logits[case] = ref.run(ids, vector=vectors[0], **arguments)[0]
            assert far(y, plain) > 1e-3, f"{name} {case} changes nothing"
            out += [f"case where/{name}/{case}", *head, "tokens " + " ".join(map(str, ids)), f"prompt {n}",
                    line("vector", vectors[0]), line("second", vectors[1])]
            for kind, what, b, part, first, to in edits:
                c = {"add": coeff if what == 1 else -coeff}.get(kind, 0)
                out.append(f"edit {kind} {what} {b} {part} {first} {to} {c:.9g}")
            out += [line(f"logits {p}", y[p]) for p in (n - 1, len(ids) - 1)] + ["end"]
        # What acts in the answer alone leaves the prompt as it was; and no two cases are alike.
        assert torch.equal(logits["add-1"][:n], plain[:n]) and far(logits["add-0"][:n], plain[:n]) > 1e-3
        for a in plans:
            for b in plans:
                assert a == b or far(logits[a], logits[b]) > 1e-5, f"{name}: {a} is as {b}"
    return out


# ---- the models in the box -------------------------------------------------------------------------

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


def means_group():
    """Both contrasts at once, in tokens: each question stands behind one of two system prompts and has a
    response of one of two sorts. At position -1 the system prompts differ, at position 0 the responses."""
    out = ["# Means with a behaviour and without it (float64). with, without P ID...: a prompt of P tokens,",
           "# then its response. dim LAYER POSITION V... the difference at position -1, the prompts' last",
           "# token, and at 0, the mean over each response's tokens, then over prompts; keep LAYER POSITION",
           "# K... [3 * layers] what the means without it have along V."]
    for name in "llama", "gemma", "qwen":
        ref, ids, head, layer, _, _ = random_model(name, torch.float64)
        rng, n = np.random.RandomState(RANDOM[name][0]), 7

        def draw(least, most):
            return rng.randint(ref.c["vocab"], size=rng.randint(least, most + 1)).tolist()
        systems, end, questions = [draw(4, 4), draw(3, 3)], draw(2, 2), [draw(1, 9) for _ in range(n)]
        out += [f"case means/{name}", *head]
        sums = [np.zeros((2, 3, ref.layers, ref.c["d"])) for _ in systems]      # position -1, 0; site; block
        for question in questions:
            for k, word in enumerate(["with", "without"]):
                prompt, response = systems[k] + question + end, draw(1, 11)
                out.append(f"{word} {len(prompt)} " + " ".join(map(str, prompt + response)))
                tape = ref.run(prompt + response)[1]
                for site, where in enumerate(ABLATED):
                    for b in range(ref.layers):
                        x = tape[where][b][0].numpy()
                        sums[k][0, site, b] += x[len(prompt) - 1] / n
                        sums[k][1, site, b] += x[len(prompt):].mean(0) / n
        for b in range(ref.layers):
            for pos in -1, 0:
                if b == 0 and pos == -1:
                    continue                          # the template's own last token: zero
                v = sums[0][1 + pos, 0, b] - sums[1][1 + pos, 0, b]
                along = sums[1][1 + pos] @ v / np.linalg.norm(v)
                out += [line(f"dim {b} {pos}", v), line(f"keep {b} {pos}", along.ravel())]
        out.append("end")
    return out
