"""Time ./steer against PyTorch on the same prompts, weights and machine.

    python3 tools/versus_torch.py MODEL.bin PROMPTS.jsonl [-- ./steer generate ...]

PyTorch: transformers' model in float32 with its fastest CPU attention (sdpa) and KV cache, batches
of 50, left padded, greedy, stopping at end-of-turn tokens. Prompts: the first 100 "prompt" fields of
the files. Both sides use the model's chat template with its default system prompt. The command after
-- may use {model}, {prompts} (a file of {"prompt": ...} lines) and {jsonl} (where it may write a line
{"prompt", "ids", "text"} a prompt). PyTorch's time leaves out loading the weights, the program's is
its whole run, from start to end. Runs alternate, so that a noisy machine is noisy for both.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = "./steer generate {model} --prompts {prompts} --max-new {new} --quiet --jsonl {jsonl}"


def generate(model, rows, eot, new, batch):
    """Greedy answers of PyTorch, cut after their first end-of-turn token."""
    import torch
    out = []
    for at in range(0, len(rows), batch):
        part = rows[at:at + batch]
        width = max(map(len, part))
        ids = torch.tensor([[eot[-1]] * (width - len(r)) + r for r in part])
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in part])
        with torch.no_grad():
            got = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False,
                                 eos_token_id=eot, pad_token_id=eot[-1])
        for row in got[:, width:].tolist():
            end = next((i + 1 for i, x in enumerate(row) if x in eot), len(row))
            out.append(row[:end])
    return out


def main():
    ap = argparse.ArgumentParser(description="./steer against PyTorch, the same work",
                                 epilog=f"default: {COMMAND}")
    ap.add_argument("model")
    ap.add_argument("prompts", nargs="+", help='files with a line {"prompt": ...} each')
    ap.add_argument("--count", type=int, default=100)
    ap.add_argument("--max-new", type=int, default=48)
    ap.add_argument("--batch", type=int, default=50)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--runs", type=int, default=1, help="of each, alternating")
    ap.add_argument("--only", choices=["torch", "steer"])
    argv = sys.argv[1:]
    cut = argv.index("--") if "--" in argv else len(argv)
    args = ap.parse_args(argv[:cut])
    command = argv[cut + 1:] or COMMAND.split()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)        # for both, before PyTorch starts

    prompts = [json.loads(line)["prompt"] for p in args.prompts
               for line in Path(p).read_text().splitlines() if line.strip()][:args.count]
    import binfile
    config, t, tensors, name, _ = binfile.read(args.model, tensors=args.only != "steer")
    eot = t["eot"]
    print(f"{name}: {len(prompts)} prompts, at most {args.max_new} new tokens, {args.threads} threads",
          flush=True)
    if args.only != "steer":
        import torch
        import reference
        import reference_text
        torch.set_num_threads(args.threads)
        tok = reference_text.tokenizer_of_bin(t)
        specials = [s.decode() for s, kind in zip(t["tokens"], t["types"]) if kind == 1]
        reference_text.add_specials(tok, specials)
        p = t["template"]
        head = p["start"] + (p["system_pre"] + p["system"] + p["system_post"] if p["system"] else "")
        rows = [tok.encode(head + p["user_pre"] + (s.strip() if t["trim"] else s) + p["user_post"]
                           + p["assistant_pre"], add_special_tokens=False).ids for s in prompts]
        model = reference.network(config, tensors, attention="sdpa")
        print(f"{sum(map(len, rows))} prompt tokens", flush=True)

    times, answers = {"torch": [], "steer": []}, {}
    with tempfile.TemporaryDirectory() as tmp:
        todo, jsonl = Path(tmp, "prompts.jsonl"), Path(tmp, "out.jsonl")
        todo.write_text("".join(json.dumps({"prompt": s}) + "\n" for s in prompts))
        filled = [a.format(model=args.model, prompts=todo, jsonl=jsonl, new=args.max_new) for a in command]
        for i in range(args.runs):
            for who in [args.only] if args.only else ["torch", "steer"]:
                start = time.perf_counter()
                if who == "torch":
                    answers[who] = generate(model, rows, eot, args.max_new, args.batch)
                elif subprocess.run(filled, stdout=subprocess.DEVNULL).returncode:
                    sys.exit(f"versus_torch: {' '.join(filled)} failed")
                took = time.perf_counter() - start
                times[who].append(took)
                if who == "steer" and jsonl.exists():
                    by_prompt = {o["prompt"]: o["ids"] for o in map(json.loads, jsonl.open())}
                    answers[who] = [by_prompt[s] for s in prompts]
                made = f", {sum(map(len, answers[who]))} tokens" if who in answers else ""
                print(f"run {i + 1}: {who} {took:.1f} s{made}", flush=True)
    best = {who: min(v) for who, v in times.items() if v}
    ratio = f"; steer takes {best['steer'] / best['torch']:.2f} of PyTorch's time" if len(best) == 2 else ""
    print("best: " + ", ".join(f"{who} {v:.1f} s" for who, v in best.items()) + ratio)
    if len(answers) == 2:
        # An end-of-turn token may or may not be among the program's ids: compare without it
        a, b = ([[x for x in r if x not in eot] for r in answers[w]] for w in ("torch", "steer"))
        pairs = list(zip(a, b))
        first = [next((i for i, (x, y) in enumerate(zip(r, s)) if x != y), min(len(r), len(s)))
                 for r, s in pairs if r != s]
        print(f"answers equal token for token: {len(pairs) - len(first)} of {len(a)}"
              + (f"; the others part after {sum(first) / len(first):.0f} tokens on average" if first else ""))


if __name__ == "__main__":
    main()
