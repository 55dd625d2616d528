"""Time steer.c against tuned PyTorch programs on the same work, weights and machine.

    python3 tools/versus_torch.py answers MODEL.bin PROMPTS... [-- ./steer generate ...]
    python3 tools/versus_torch.py scores MODEL.bin --vector FILE.vec
    python3 tools/versus_torch.py training MODEL.bin --layer L

PyTorch is transformers' model in float32 with its fastest CPU attention (sdpa); its time leaves out imports
and loading the weights. Runs alternate, so that a noisy machine is noisy for both; printed are medians, and
how far the two results are apart. tools/bench.py (`make bench`) runs all of it beside other rows.

answers     PyTorch: KV cache, batches, left padded, greedy, stopping at end-of-turn tokens. Prompts: the
            first of the files, which have a line {"prompt": ...} or a bare text each. Both sides use the
            model's chat template with its default system prompt. The command after -- may use {model},
            {prompts} and {jsonl}, as the default does. The program's time is its whole run.
scores      Edge scores of random tokens. PyTorch starts at the vector's block from the base run's residual,
            computes no logits but those of the two tokens that the metric reads, holds no gradient of a
            weight, and sums over the steps what q_proj, k_proj and v_proj make, whose gradients are small,
            instead of each head's input: the product with the nodes' differences comes once, at the end.
            steer.c makes the norm-aware form beside it, PyTorch does not. The program's time is its whole run.
training    NTP and PO: steps of AdamW on pairs of random tokens. Both start at the vector's block from the
            base runs' residuals, which are computed before the clock starts, and both compute logits of the
            predictions alone. PyTorch takes a batch's responses at once, padded on the right, where causal
            attention needs no mask, and goes backward through them all together.

Models with norms behind their modules (Gemma 2 and 3) are refused by scores.
"""
import argparse
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "./steer generate {model} --prompts {prompts} --max-new {new} --quiet --jsonl {jsonl}"


class Torch:
    """The model as PyTorch has it."""

    def __init__(self, path, threads):
        global torch, np
        import numpy as np
        import torch
        import binfile
        import reference
        torch.set_num_threads(threads)
        self.config, self.text, tensors, self.name, _ = binfile.read(path)
        self.net = reference.network(self.config, tensors, attention="sdpa").requires_grad_(False)
        self.layers = self.net.model.layers

    def blocks(self, x, first, last):
        """x [batch, n, d] through blocks first .. last - 1."""
        at = torch.arange(x.shape[1])[None]
        turned = self.net.model.rotary_emb(x, at)
        for block in self.layers[first:last]:
            x = block(x, attention_mask=None, position_ids=at, position_embeddings=turned)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def below(self, ids, layer):
        """The residual [1, n, d] that enters a block."""
        return self.blocks(self.net.model.embed_tokens(torch.tensor([ids])), 0, layer)

    def tokens_of(self, prompts):
        import reference_text
        t, p = self.text, self.text["template"]
        tok = reference_text.tokenizer_of_bin(t)
        reference_text.add_specials(tok, [s.decode() for s, kind in zip(t["tokens"], t["types"]) if kind == 1])
        head = p["start"] + (p["system_pre"] + p["system"] + p["system_post"] if p["system"] else "")
        return [tok.encode(head + p["user_pre"] + (s.strip() if t["trim"] else s) + p["user_post"]
                           + p["assistant_pre"], add_special_tokens=False).ids for s in prompts]


def probe(*arguments, lines):
    """What tests/probe prints."""
    return subprocess.run([ROOT / "tests" / "probe", *map(str, arguments)], input="\n".join(lines) + "\n",
                          stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout


def numbers(ids):
    return " ".join(map(str, ids))


# ---------------------------------------------------------------- answers

class Answers:
    """Greedy answers to prompts, a batch of them a run; the batches take turns."""

    def __init__(self, path, prompts, new, batch, pytorch=None, command=None):
        self.path, self.new, self.pytorch = path, new, pytorch
        self.command = command or COMMAND.split()
        self.batches = [prompts[i:i + batch] for i in range(0, len(prompts), batch)]
        self.runs, self.answers = {"torch": 0, "steer": 0}, {"torch": {}, "steer": {}}
        self.rows = dict(zip(prompts, pytorch.tokens_of(prompts))) if pytorch else {}

    def turn(self, who):
        self.runs[who] += 1
        return self.batches[(self.runs[who] - 1) % len(self.batches)]

    def torch(self):
        prompts, eot = self.turn("torch"), self.pytorch.text["eot"]
        rows = [self.rows[s] for s in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([[eot[-1]] * (width - len(r)) + r for r in rows])
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
        with torch.no_grad():
            got = self.pytorch.net.generate(input_ids=ids, attention_mask=mask, max_new_tokens=self.new,
                                            do_sample=False, eos_token_id=eot, pad_token_id=eot[-1])
        self.answers["torch"].update(zip(prompts, got[:, width:].tolist()))

    def steer(self):
        prompts = self.turn("steer")
        with tempfile.TemporaryDirectory() as tmp:
            todo, jsonl = Path(tmp, "prompts.jsonl"), Path(tmp, "out.jsonl")
            todo.write_text("".join(json.dumps({"prompt": s}) + "\n" for s in prompts))
            filled = [a.format(model=self.path, prompts=todo, jsonl=jsonl, new=self.new) for a in self.command]
            subprocess.run(filled, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
            if jsonl.exists():
                self.answers["steer"].update((o["prompt"], o["ids"]) for o in map(json.loads, jsonl.open()))

    def apart(self):
        """What both answered, up to the first end-of-turn token."""
        eot = self.pytorch.text["eot"]

        def cut(row):
            return row[:next((i for i, x in enumerate(row) if x in eot), len(row))]
        both = self.answers["torch"].keys() & self.answers["steer"].keys()
        equal = sum(cut(self.answers["torch"][s]) == cut(self.answers["steer"][s]) for s in both)
        return f"{equal} of {len(both)} answers equal token for token", equal >= 0.9 * len(both)


# ---------------------------------------------------------------- edge scores

class Scores:
    """Edge scores [slots, nodes] by integrated gradients, behind the slots' norms."""
    STEPS = 10                                                 # as tests/probe has them

    def __init__(self, path, vector, tokens, prompt, pytorch=None):
        self.path, self.vector, self.prompt, self.pytorch = path, vector, prompt, pytorch
        head = Path(vector).read_bytes()
        self.d, _, _, vocab, self.layer, _, coeff = struct.unpack_from("<6if", head, 24)
        self.raw = Path(tempfile.mkdtemp()) / "raw"
        self.ids = random.Random(1).choices(range(1000, 20000), k=tokens)
        if not pytorch:
            return
        config = pytorch.config
        if config["post_norms"]:
            sys.exit(f"{pytorch.name} has norms behind its modules, which this comparison does not know")
        self.s = coeff * torch.from_numpy(np.frombuffer(head, "<f4", self.d, 256).copy())
        self.net, self.above = pytorch.net, pytorch.layers[self.layer:]
        self.heads, self.hd = config["heads"], config["head_dim"]
        self.seen = {}
        for b, block in enumerate(self.above):
            attn = block.self_attn
            for name, module in ("q", attn.q_proj), ("k", attn.k_proj), ("v", attn.v_proj), ("mlp", block.mlp):
                module.register_forward_hook(self.keep_output((name, b)))
            attn.o_proj.register_forward_pre_hook(self.keep_input(("z", b)))
            block.mlp.register_forward_pre_hook(self.keep_input(("in", b)))

    def keep_output(self, key):
        def hook(module, args, y):
            self.seen[key] = y
        return hook

    def keep_input(self, key):
        def hook(module, args):
            self.seen[key] = args[0]
        return hook

    def final(self, x):
        return self.net.model.norm(self.pytorch.blocks(x, self.layer, len(self.pytorch.layers)))

    def end(self, x_l, answers):
        """The nodes' outputs [nodes, n, d] of a run from x_l, and greedy tokens from row `answers` on."""
        final = self.final(x_l)
        nodes = [x_l]
        for b, block in enumerate(self.above):
            z = self.seen["z", b][0].unflatten(-1, (self.heads, self.hd))
            w = block.self_attn.o_proj.weight.unflatten(-1, (self.heads, self.hd))
            nodes += [torch.einsum("thc,dhc->htd", z, w), self.seen["mlp", b]]
        return torch.cat(nodes), self.net.lm_head(final[0, answers:]).argmax(-1)

    def torch(self):
        """Of the steered run's text: the base run is the source, as of `probe scores`."""
        with torch.no_grad():
            x_l = self.pytorch.below(self.ids, self.layer)
            (source, y), (there, y_star) = (self.end(x, self.prompt - 1) for x in (x_l, x_l + self.s))
            source -= there                                    # the nodes' differences
        poi = (y != y_star).nonzero()[:, 0]
        push = (self.net.lm_head.weight[y[poi]] - self.net.lm_head.weight[y_star[poi]]) / len(poi)
        total = None
        for i in range(self.STEPS):
            x = (x_l + (i + 0.5) / self.STEPS * self.s).requires_grad_()
            final = self.final(x)
            keys = [(name, b) for b in range(len(self.above)) for name in ("q", "k", "v", "in")]
            grads = torch.autograd.grad((final[0, self.prompt - 1 + poi] * push).sum(),
                                        [self.seen[k] for k in keys] + [final])
            total = grads if total is None else [a.add_(g) for a, g in zip(total, grads)]
        with torch.no_grad():
            self.edges = self.products(source.flatten(1), dict(zip(keys + ["end"], total)))

    def products(self, delta, grads):
        rows = []
        for b, block in enumerate(self.above):
            G = [torch.einsum("thc,hcd->htd", grads[name, b][0].unflatten(-1, (-1, self.hd)),
                              getattr(block.self_attn, name + "_proj").weight.unflatten(0, (-1, self.hd)))
                 for name in ("q", "k", "v")]
            before = 1 + b * (self.heads + 1)
            for g, senders in (torch.cat(G), before), (grads["in", b], before + self.heads):
                found = torch.zeros(len(g), len(delta))
                found[:, :senders] = g.flatten(1) @ delta[:senders].T
                rows.append(found)
        rows.append(grads["end"].flatten(1) @ delta.T)
        return torch.cat(rows) / self.STEPS

    def steer(self):
        probe("scores", self.path, self.vector, self.prompt, self.raw, lines=[numbers(self.ids)])

    def apart(self):
        found = np.fromfile(self.raw, "<f8")
        nodes = self.edges.shape[1]
        edge = found[3 + nodes + self.d:][:self.edges.numel()].reshape(self.edges.shape)
        off = np.abs(edge - self.edges.double().numpy()).max() / np.abs(edge).max()
        return (f"{found[0]:.0f} positions of interest; {self.edges.numel()} scores differ by at most {off:.1e} "
                "of the largest", off < 1e-2)                  # PyTorch is 7e-4 from float64 on SmolLM2


# ---------------------------------------------------------------- training

class Training:
    """Steps of NTP (0) or PO (1) on batches of random pairs, a batch a step."""
    BATCH, RATE, PHI, SEED = 6, 0.01, 0.02, 7                  # as steer.c has them by default

    def __init__(self, path, layer, objective, steps=2, answer=48, pytorch=None):
        self.path, self.layer, self.objective, self.steps = path, layer, objective, steps
        self.pytorch, self.answer, draw = pytorch, answer, random.Random(2)
        self.raw = Path(tempfile.mkdtemp()) / "raw"
        self.pairs = []                                        # (tokens of the prompt, the two sequences)
        for _ in range(self.BATCH * steps):
            prompt = draw.choices(range(1000, 20000), k=draw.randint(24, 48))
            self.pairs.append((len(prompt), [prompt + draw.choices(range(1000, 20000), k=answer)
                                             for _ in range(2)]))
        if pytorch:
            with torch.no_grad():
                self.start = [[pytorch.below(ids, layer)[0] for ids in both] for _, both in self.pairs]
                none = torch.zeros(pytorch.config["d"])
                self.base = [self.logp([(i, k, 0.0) for k in range(2)], none).tolist()
                             for i in range(len(self.pairs))]

    def logp(self, runs, v):
        """ln p of responses k of pairs i in runs with f v added, [(i, k, f)], as one batch."""
        starts = [self.start[i][k] + f * v for i, k, f in runs]
        x = torch.nn.utils.rnn.pad_sequence(starts, batch_first=True)
        final = self.pytorch.net.model.norm(self.pytorch.blocks(x, self.layer, len(self.pytorch.layers)))
        prompts = [self.pairs[i][0] for i, _, _ in runs]
        read = torch.cat([row[p - 1:p - 1 + self.answer] for row, p in zip(final, prompts)])
        want = torch.tensor([t for i, k, _ in runs for t in self.pairs[i][1][k][self.pairs[i][0]:]])
        loss = torch.nn.functional.cross_entropy(self.pytorch.net.lm_head(read), want, reduction="none")
        return -loss.view(len(runs), -1).sum(-1)

    def drawn(self):
        """What steer.c draws from its seed: the first vector, the order, a factor a pair."""
        state, mask = self.SEED * 0x9E3779B97F4A7C15 + 1 & (1 << 64) - 1, (1 << 64) - 1

        def unit():
            nonlocal state
            state ^= state >> 12
            state = (state ^ state << 25) & mask
            state ^= state >> 27
            return (state * 0x2545F4914F6CDD1D & mask) >> 11

        def real():
            return unit() / (1 << 53)
        v = []
        for _ in range(self.pytorch.config["d"]):
            size = math.sqrt(-2 * math.log(1 - real()))
            v.append(0.01 * size * math.cos(2 * math.pi * real()))
        order = list(range(len(self.pairs)))
        for i in range(len(order) - 1, 0, -1):
            j = int(real() * (i + 1))
            order[i], order[j] = order[j], order[i]
        return v, [(i, 2.0 * (1 + int(real() * 10))) for i in order]

    def torch(self):
        v, drawn = self.drawn()
        v = torch.tensor(v, requires_grad=True)
        adam = torch.optim.AdamW([v], lr=self.RATE, weight_decay=0.0)
        kinds = 1 + self.objective
        for at in range(0, len(drawn), self.BATCH):
            batch = drawn[at:at + self.BATCH]
            logp = self.logp([(i, k, f) for k in range(kinds) for i, f in batch], v).view(kinds, -1)
            loss = -logp[0] / self.answer
            if self.objective:
                base = torch.tensor([self.base[i] for i, _ in batch])
                beta = (self.PHI * (base[:, 1] - base[:, 0])).clamp(min=1.0)
                loss = -torch.nn.functional.logsigmoid((beta * logp[0] - logp[1]) / self.answer)
            v.grad = None
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_([v], 1.0)
            adam.step()
        self.v = v.detach() / v.detach().norm()

    def steer(self):
        """Its own seconds: the program's base runs come before."""
        lines = [" ".join([str(p), str(len(ids)), numbers(ids)]) for p, both in self.pairs for ids in both]
        said = probe("train", self.path, self.layer, self.objective, self.raw, lines=lines)
        return tuple(map(float, said.split()))

    def apart(self):
        found = np.fromfile(self.raw, "<f4")
        off = float(np.abs(found - self.v.numpy()).max() / np.abs(found).max())
        return f"the vectors' entries differ by at most {off:.1e} of the largest", off < 1e-2


# ---------------------------------------------------------------- in alternation

def measured(run):
    """Seconds of the clock and of the processors; what a run says itself counts."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    said = run()
    return said or (time.perf_counter() - start, sum(os.times()[:4]) - used)


def alternate(runs, rounds, say=None):
    """{who: [(seconds, processors' seconds)]} of {who: run}."""
    times = {who: [] for who in runs}
    for i in range(rounds):
        for who, run in runs.items():
            times[who].append(measured(run))
            if say:
                say(f"round {i + 1}: {who} {times[who][-1][0]:.2f} s, {times[who][-1][1]:.2f} s of processors")
    return times


def median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def prompts_of(paths, count):
    lines = [line for p in paths for line in Path(p).read_text().splitlines() if line.strip()]
    return [json.loads(line)["prompt"] if line.startswith("{") else line for line in lines][:count]


def main():
    ap = argparse.ArgumentParser(description="steer.c against PyTorch, the same work")
    kinds = ap.add_subparsers(dest="what", required=True)
    for what in "answers", "scores", "training":
        kind = kinds.add_parser(what, epilog=f"default command: {COMMAND}" if what == "answers" else None)
        kind.add_argument("model")
        kind.add_argument("--threads", type=int, default=2)
        kind.add_argument("--runs", type=int, default=3, help="of each, alternating")
        if what == "answers":
            kind.add_argument("prompts", nargs="+", help='files with a text or a line {"prompt": ...} each')
            kind.add_argument("--count", type=int, default=100)
            kind.add_argument("--max-new", type=int, default=48)
            kind.add_argument("--batch", type=int, default=50, help="prompts a run, and of PyTorch's batch")
        elif what == "scores":
            kind.add_argument("--vector", required=True)
            kind.add_argument("--tokens", type=int, default=200)
            kind.add_argument("--prompt", type=int, default=150, help="tokens of them that are the prompt")
        else:
            kind.add_argument("--layer", type=int, required=True, help="the vector's block")
            kind.add_argument("--steps", type=int, default=2, help="of AdamW, on six pairs each")
            kind.add_argument("--answer", type=int, default=48, help="tokens of a response")
    argv = sys.argv[1:]
    cut = argv.index("--") if "--" in argv else len(argv)
    args = ap.parse_args(argv[:cut])
    os.environ["OMP_NUM_THREADS"] = str(args.threads)          # for both, before PyTorch starts
    subprocess.run(["make", "-s", "-C", ROOT, "steer", "tests/probe"], check=True, stdout=subprocess.DEVNULL)
    path = Path(args.model).resolve()
    pytorch = Torch(path, args.threads)
    print(f"{pytorch.name}: {args.what}, {args.threads} threads", flush=True)
    if args.what == "answers":
        todo = {"answers": Answers(path, prompts_of(args.prompts, args.count), args.max_new, args.batch, pytorch,
                                   argv[cut + 1:])}
    elif args.what == "scores":
        todo = {"scores": Scores(path, Path(args.vector).resolve(), args.tokens, args.prompt, pytorch)}
    else:
        todo = {name: Training(path, args.layer, i, args.steps, args.answer, pytorch)
                for i, name in enumerate(("NTP", "PO"))}
    for name, one in todo.items():
        times = alternate({"torch": one.torch, "steer": one.steer}, args.runs, lambda s: print(s, flush=True))
        for i, what in enumerate(("time", "processors' time")):
            a, b = (median([t[i] for t in times[who]]) for who in ("torch", "steer"))
            print(f"{name}, median {what}: torch {a:.2f} s, steer {b:.2f} s; PyTorch takes {a / b:.2f} times as long")
        text, near = one.apart()
        print(f"{name}: {text}")
        if not near:
            sys.exit("that is more than rounding")


if __name__ == "__main__":
    main()
