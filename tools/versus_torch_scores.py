"""Time the edge scores of steer.c against a tuned PyTorch program on one example of random tokens.

    python3 tools/versus_torch_scores.py MODEL.bin --vector FILE.vec

PyTorch: transformers' model in float32 with its fastest CPU attention (sdpa), which starts at the
vector's block from the base run's residual, computes no logits but those of the two tokens that the
metric reads, holds no gradient of a weight, and sums over the steps what q_proj, k_proj and v_proj
make, whose gradients are small, instead of each head's input: the product with the nodes' differences
comes once, at the end. steer.c makes the norm-aware form beside it, PyTorch does not. Both have the
same example; the largest difference of their scores is printed. PyTorch's time leaves out imports and
loading the weights; the program's is its whole run, from start to end. Runs alternate. Models with
norms behind their modules (Gemma 2 and 3) are refused.
"""
import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


class Scores:
    """Edge scores [slots, nodes] by integrated gradients, behind the slots' norms."""

    def __init__(self, net, config, layer):
        self.net, self.layers, self.layer = net, net.model.layers, layer
        self.heads, self.kv, self.hd = config["heads"], config["kv_heads"], config["head_dim"]
        self.seen = {}
        for b, block in enumerate(self.layers[layer:]):
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

    def blocks(self, x, first, last):
        """x [1, n, d] through blocks first .. last - 1."""
        at = torch.arange(x.shape[1])[None]
        turned = self.net.model.rotary_emb(x, at)
        for block in self.layers[first:last]:
            x = block(x, attention_mask=None, position_ids=at, position_embeddings=turned)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def end(self, x_l, answers):
        """The nodes' outputs [nodes, n, d] of a run from x_l, and greedy tokens from row `answers` on."""
        final = self.net.model.norm(self.blocks(x_l, self.layer, len(self.layers)))
        nodes = [x_l]
        for b, block in enumerate(self.layers[self.layer:]):
            z = self.seen["z", b][0].unflatten(-1, (self.heads, self.hd))
            w = block.self_attn.o_proj.weight.unflatten(-1, (self.heads, self.hd))
            nodes += [torch.einsum("thc,dhc->htd", z, w), self.seen["mlp", b]]
        return torch.cat(nodes), self.net.lm_head(final[0, answers:]).argmax(-1)

    def __call__(self, ids, prompt, vector, steps):
        """Of the steered run's text: the base run is the source, as of `probe scores`."""
        with torch.no_grad():
            x_l = self.blocks(self.net.model.embed_tokens(torch.tensor([ids])), 0, self.layer)
            (source, y), (there, y_star) = (self.end(x, prompt - 1) for x in (x_l, x_l + vector))
            source -= there                                    # the nodes' differences
        poi = (y != y_star).nonzero()[:, 0]
        push = (self.net.lm_head.weight[y[poi]] - self.net.lm_head.weight[y_star[poi]]) / len(poi)
        total = None
        for i in range(steps):
            x = (x_l + (i + 0.5) / steps * vector).requires_grad_()
            final = self.net.model.norm(self.blocks(x, self.layer, len(self.layers)))
            keys = [(name, b) for b in range(len(self.layers) - self.layer) for name in ("q", "k", "v", "in")]
            grads = torch.autograd.grad((final[0, prompt - 1 + poi] * push).sum(),
                                        [self.seen[k] for k in keys] + [final])
            total = grads if total is None else [a.add_(g) for a, g in zip(total, grads)]
        with torch.no_grad():
            return self.products(source.flatten(1), dict(zip(keys + ["end"], total)), steps)

    def products(self, delta, grads, steps):
        rows = []
        for b, block in enumerate(self.layers[self.layer:]):
            G = [torch.einsum("thc,hcd->htd", grads[name, b][0].unflatten(-1, (-1, self.hd)),
                              getattr(block.self_attn, name + "_proj").weight.unflatten(0, (-1, self.hd)))
                 for name in ("q", "k", "v")]
            before = 1 + b * (self.heads + 1)
            for g, senders in (torch.cat(G), before), (grads["in", b], before + self.heads):
                found = torch.zeros(len(g), len(delta))
                found[:, :senders] = g.flatten(1) @ delta[:senders].T
                rows.append(found)
        rows.append(grads["end"].flatten(1) @ delta.T)
        return torch.cat(rows) / steps


def main():
    ap = argparse.ArgumentParser(description="edge scores: steer.c against PyTorch")
    ap.add_argument("model")
    ap.add_argument("--vector", required=True)
    ap.add_argument("--tokens", type=int, default=200)
    ap.add_argument("--prompt", type=int, default=150, help="tokens of them that are the prompt")
    ap.add_argument("--steps", type=int, default=10, help="of PyTorch; tests/probe takes ten")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--runs", type=int, default=3, help="of each, alternating")
    args = ap.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)          # for both, before PyTorch starts
    global torch
    import torch
    import binfile
    import reference
    torch.set_num_threads(args.threads)
    root = Path(__file__).resolve().parent.parent
    subprocess.run(["make", "-s", "-C", root, "tests/probe"], check=True)

    head = Path(args.vector).read_bytes()
    d, _, _, _, layer, _, coeff = struct.unpack_from("<6if", head, 24)
    vector = coeff * torch.from_numpy(np.frombuffer(head, "<f4", d, 256).copy())
    config, _, tensors, name, _ = binfile.read(args.model)
    if config["post_norms"]:
        sys.exit(f"{name} has norms behind its modules, which this comparison does not know")
    scores = Scores(reference.network(config, tensors, attention="sdpa"), config, layer)
    ids = random.Random(1).choices(range(1000, config["vocab"] // 2), k=args.tokens)
    print(f"{name}: {args.tokens} tokens, {args.prompt} of them prompt, block {layer} on, "
          f"{args.steps} steps, {args.threads} threads", flush=True)

    times, cpu = {"torch": [], "steer": []}, {"torch": [], "steer": []}
    with tempfile.TemporaryDirectory() as tmp:
        raw = Path(tmp, "raw")
        command = [root / "tests" / "probe", "scores", args.model, args.vector, str(args.prompt), raw]
        for i in range(args.runs):
            for who in "torch", "steer":
                start, used = time.perf_counter(), sum(os.times()[:4])
                if who == "torch":
                    mine = scores(ids, args.prompt, vector, args.steps)
                else:
                    subprocess.run(command, input=" ".join(map(str, ids)).encode(), check=True)
                times[who].append(time.perf_counter() - start)
                cpu[who].append(sum(os.times()[:4]) - used)
                print(f"run {i + 1}: {who} {times[who][-1]:.1f} s, {cpu[who][-1]:.1f} s of processors",
                      flush=True)
        found = np.fromfile(raw, "<f8")
    nodes = mine.shape[1]
    edge = found[3 + nodes + d:][:mine.numel()].reshape(mine.shape)
    off = np.abs(edge - mine.double().numpy()).max() / np.abs(edge).max()
    for what, of in ("time", times), ("processors' time", cpu):
        a, b = (sorted(of[who])[len(of[who]) // 2] for who in ("torch", "steer"))
        print(f"median {what}: torch {a:.1f} s, steer {b:.1f} s; PyTorch takes {a / b:.2f} times as long")
    print(f"{mine.numel()} scores differ by at most {off:.1e} of the largest")
    if args.steps == 10 and off > 1e-2:  # PyTorch itself is 7e-4 from float64 on SmolLM2
        sys.exit("that is more than rounding")


if __name__ == "__main__":
    main()
