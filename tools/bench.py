"""The speed of steer.c, in alternation with the peers that are installed here: `make bench`.

    python3 tools/bench.py [--rounds 5] [--threads 2] [--llama PYTHON] [--only WORD...]

Rows: linear layers against the machine's peak of multiply-adds (PyTorch's beside them), generation against the
speed at which the same threads read memory, prefill and generation (llama.cpp), edge scores, steps of NTP and PO
training, answers (PyTorch), on the models that are there: `make smollm2 qwen`; of a larger one (`make qwen-1.5b`)
generation alone. Each round runs steer.c and the peer one after the other; printed are medians and
ranges over the rounds, and the median of the rounds' ratios. What is not installed is named.

PyTorch wants the first two groups of tools/requirements.txt, llama.cpp the first and the package
llama-cpp-python; --llama (or LLAMA_PYTHON) names a Python that has it, where this one has not. llama.cpp gets the same
weights: the GGUF of the model's packages, widened to F16 or packed as Q8_0 once, into build/.

Five rounds and more of all rows go into weights/reports/speed.json and from there, by tools/results.py, into the
tables of weights/RESULTS.md and README.md; fewer are a try.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD, WEIGHTS = ROOT / "build", ROOT / "weights"
MODELS = {"SmolLM2-135M": ("smollm2-135m", "smollm2"), "Qwen2.5-Coder-0.5B": ("qwen2.5-coder-0.5b", "qwen")}
# steer.c's format and llama.cpp's
FORMATS = {"bf16": "F16", "q8": "Q8_0"}
LARGER = {"Qwen2.5-Coder-1.5B": "qwen2.5-coder-1.5b"}
PROMPT, GENERATED = 200, 32


# ---------------------------------------------------------------- llama.cpp, in its own process

def llama_worker(path, threads):
    """For each line "prefill N" or "generate N" what tests/bench answers."""
    sys.path = [p for p in sys.path if Path(p or ".").resolve() != HERE]  # llama_cpp is that package here
    import ctypes
    import llama_cpp as ll
    model = ll.Llama(str(path), n_ctx=512, n_batch=512, n_ubatch=512, n_threads=threads,
                     n_threads_batch=threads, verbose=False)
    context = model.ctx

    def run(tokens):
        array = (ll.llama_token * len(tokens))(*tokens)
        assert not ll.llama_decode(context, ll.llama_batch_get_one(array, len(tokens)))
        return ctypes.cast(ll.llama_get_logits_ith(context, -1), ctypes.c_void_p).value
    print("ready", flush=True)
    for line in sys.stdin:
        what, n = line.split()
        tokens = [1000 + 7 * i for i in range(int(n))]
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        if what == "generate":
            run(list(range(1000, 1016)))
        start, used = time.perf_counter(), time.process_time()
        for piece in [[t] for t in tokens] if what == "generate" else [tokens]:
            assert run(piece)
        print(time.perf_counter() - start, time.process_time() - used, flush=True)


class Server:
    """A process that answers such lines."""

    def __init__(self, *command, greets=False):
        self.process = subprocess.Popen([str(x) for x in command], cwd=ROOT, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.works = not greets or self.process.stdout.readline().strip() == "ready"

    def ask(self, what, n):
        self.process.stdin.write(f"{what} {n}\n")
        self.process.stdin.flush()
        return tuple(map(float, self.process.stdout.readline().split()))

    def end(self):
        self.process.stdin.close()
        self.process.wait()


# ---------------------------------------------------------------- rows

def middle(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


class Bench:
    def __init__(self, args):
        self.args, self.rows, self.layers, self.missing = args, [], [], []
        self.memory, self.peak = [], None
        self.began = time.monotonic()

    def say(self, text):
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", flush=True)

    def wanted(self, name):
        return not self.args.only or any(word in name for word in self.args.only)

    def lack(self, text):
        if text not in self.missing:
            self.missing.append(text)
            self.say("not here: " + text)

    def compare(self, work, peer, runs, unit=None, amount=0):
        """A row: each round runs steer.c, then the peer (or None)."""
        times = versus.alternate({who: run for who, run in runs.items() if run}, self.args.rounds)
        row = {"work": work, "peer": peer if "peer" in times else None, "unit": unit}
        for i, what in enumerate(("clock", "processors")):
            for who, of in times.items():
                x = [t[i] for t in of]
                row[f"{who} {what}"] = [middle(x), min(x), max(x)]
            if "peer" in times:
                x = [p[i] / s[i] for p, s in zip(times["peer"], times["steer"])]
                row[f"ratio {what}"] = [middle(x), min(x), max(x)]
        self.rows.append(row)
        line = f"{work}: steer.c {span(row['steer clock'])} s"
        if unit:
            line += f", {amount / row['steer clock'][0]:.1f} {unit}"
        if "peer" in times:
            line += (f"; {peer} {span(row['peer clock'])} s; {row['ratio clock'][0]:.2f} times as fast "
                     f"({row['ratio clock'][1]:.2f} to {row['ratio clock'][2]:.2f}; processors' time "
                     f"{row['ratio processors'][0]:.2f})")
        self.say(line)

    # ---- the rows

    def linear(self, torch):
        ours, theirs, peaks = {}, {}, []
        for _ in range(self.args.rounds):
            said = subprocess.run([ROOT / "tests" / "bench", "linear"], stdout=subprocess.PIPE, text=True,
                                  check=True).stdout.split("\n")
            peaks.append(float(said[0]))
            for line in said[1:-1]:
                k, n, rows, rate = line.split()
                shape = int(k), int(n), int(rows)
                ours.setdefault(shape, []).append(100 * float(rate) / peaks[-1])
                if torch:
                    theirs.setdefault(shape, []).append(100 * layer_rate(*shape) / peaks[-1])
        if max(max(x) for x in [*ours.values(), *theirs.values()]) > 100:
            raise SystemExit("a layer above the peak: tests/bench does not measure the peak")
        self.peak = middle(peaks)
        self.say(f"peak of multiply-adds {span([middle(peaks), min(peaks), max(peaks)])} GFLOP/s; per cent of it:")
        for shape, x in ours.items():
            row = {"shape": shape, "steer": [middle(x), min(x), max(x)], "peer": None}
            if torch:
                x = theirs[shape]
                row["peer"] = [middle(x), min(x), max(x)]
            self.layers.append(row)
            self.say("  {} -> {}, {} rows: ".format(*shape) + f"steer.c (bf16) {span(row['steer'], 0)}"
                     + (f", PyTorch (f32) {span(row['peer'], 0)}" if torch else ""))

    def reading(self, models):
        """Bytes of weights a second while tokens are made one at a time, and how fast memory is read."""
        for name, path in models.items():
            server, memory, weights = Server(ROOT / "tests" / "bench", path), [], []
            server.ask("generate", 8)
            for _ in range(self.args.rounds):
                memory.append(float(subprocess.run([ROOT / "tests" / "bench", "memory"], stdout=subprocess.PIPE,
                                                   text=True, check=True).stdout))
                seconds, _, size = server.ask("generate", GENERATED)
                weights.append(GENERATED * size / seconds / 1e9)
            server.end()
            share = [100 * w / m for w, m in zip(weights, memory)]
            row = {"model": name, **{what: [middle(x), min(x), max(x)] for what, x in
                                     (("weights", weights), ("memory", memory), ("share", share))}}
            self.memory.append(row)
            self.say(f"{name}: one token at a time reads {span(row['weights'], 1)} GB/s of weights, of memory's "
                     f"{span(row['memory'], 1)}: {span(row['share'], 0)} %")

    def tokens(self, name, file, export):
        llama = self.args.llama
        for ours, theirs in FORMATS.items():
            path = WEIGHTS / f"{file}.bin" if ours == "bf16" else BUILD / f"bench-{file}-{ours}.bin"
            gguf, peer = WEIGHTS / ".cache" / f"{export}.gguf", None
            if not gguf.exists():
                self.lack(f"weights/.cache/{export}.gguf (make {export}): no {ours}, no llama.cpp of {name}")
            if not path.exists() and gguf.exists():
                self.say(f"writing {path.relative_to(ROOT)}")
                subprocess.run([sys.executable, HERE / "export.py", export, "--gguf", gguf, "--dtype", ours, "-o",
                                path], stdout=subprocess.DEVNULL)
            if not path.exists():
                self.lack(f"{name} in {ours}")
                continue
            if self.args.llama and gguf.exists():
                packed = BUILD / f"bench-{export}-{theirs}.gguf"
                if not packed.exists():
                    self.say(f"writing {packed.relative_to(ROOT)}")
                    subprocess.run([sys.executable, str(HERE / "gguf_as.py"), gguf, theirs, packed], check=True)
                peer = Server(llama, __file__, "--llama-worker", packed, self.args.threads, greets=True)
                if not peer.works:
                    self.lack(f"llama.cpp: {llama} has no llama-cpp-python")
                    self.args.llama = peer = None
            steer = Server(ROOT / "tests" / "bench", path)
            for what, n in ("prefill", PROMPT), ("generate", GENERATED):
                for server in filter(None, (steer, peer)):
                    server.ask(what, 8)                        # pages and caches
                title = {"prefill": "prefill of {} tokens", "generate": "{} tokens one at a time"}[what].format(n)
                self.compare(f"{name} {ours}: {title}", f"llama.cpp {theirs}",
                             {"steer": lambda: steer.ask(what, n),
                              "peer": (lambda: peer.ask(what, n)) if peer else None}, "tokens/s", n)
            for server in filter(None, (steer, peer)):
                server.end()

    def scores(self, name, path, layer, torch):
        vector = BUILD / f"bench-{path.stem}-{layer}.vec"
        if not vector.exists():
            self.say(f"making {vector.relative_to(ROOT)}")
            few = BUILD / "bench-prompts"
            few.mkdir(exist_ok=True)
            for side in "harmful", "harmless":
                for part in "train", "val", "test":
                    lines = (WEIGHTS / f"{side}-{part}.txt").read_text().splitlines(True)[:16]
                    (few / f"{side}-{part}.txt").write_text("".join(lines))
            subprocess.run([ROOT / "steer", "vector", path, "--out", vector, "--site", f"{layer},-1", "--coeff", "4",
                            "--data", few], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        one = versus.Scores(path, vector, PROMPT, 150, torch)
        self.pair(f"{name}: edge scores of {PROMPT} tokens from block {layer}, 10 steps", one, torch)

    def training(self, name, path, layer, torch):
        for i, kind in enumerate(("NTP", "PO")):
            one = versus.Training(path, layer, i, 1, 48, torch)
            self.pair(f"{name}: a step of {kind} on six pairs from block {layer}", one, torch)

    def answers(self, name, path, torch):
        files = [WEIGHTS / f"{side}-test.txt" for side in ("harmless", "harmful")]
        prompts = [p for pair in zip(*(versus.prompts_of([f], 50) for f in files)) for p in pair]
        one = versus.Answers(path, prompts, 48, 50, torch)
        self.pair(f"{name}: answers of 48 tokens to 50 prompts, of 100 in turn", one, torch)

    def pair(self, work, one, torch):
        self.compare(work, "PyTorch", {"steer": one.steer, "peer": one.torch if torch else None})
        if torch:
            text, near = one.apart()
            self.rows[-1]["apart"] = text
            self.say("  " + text)
            if not near:
                sys.exit("that is more than rounding")

    def run(self):
        have = {name: x for name, x in MODELS.items() if (WEIGHTS / f"{x[0]}.bin").exists()}
        for name in MODELS.keys() - have.keys():
            self.lack(f"{name} (make {MODELS[name][1]}): none of its rows")
        if not self.args.llama:
            self.lack("llama.cpp (pip install llama-cpp-python, or --llama PYTHON)")
        try:
            import torch, transformers, tokenizers, numpy  # noqa: E401, F401
        except ImportError as e:
            torch = None
            self.lack(f"PyTorch ({e.name}; tools/requirements.txt)")
        if torch:
            torch.set_num_threads(self.args.threads)
        if self.wanted("linear"):
            self.linear(torch)
        for name, (file, export) in have.items():
            if self.wanted("tokens"):
                self.tokens(name, file, export)
        if self.wanted("memory"):
            paths = {f"{name} bf16": WEIGHTS / f"{file}.bin" for name, (file, _) in have.items()}
            paths |= {f"{name} q8": BUILD / f"bench-{file}-q8.bin" for name, (file, _) in have.items()}
            paths |= {f"{name} bf16": WEIGHTS / f"{file}.bin" for name, file in LARGER.items()}
            for name, path in paths.items():
                if not path.exists():
                    self.lack(f"{path.relative_to(ROOT)}: how fast it is read")
            self.reading({name: path for name, path in paths.items() if path.exists()})
        for name, layer in ("SmolLM2-135M", 10), ("Qwen2.5-Coder-0.5B", 14):
            if name not in have:
                continue
            path = WEIGHTS / f"{have[name][0]}.bin"
            works = [w for w in (("scores", "training") if layer == 10 else ("training", "answers"))
                     if self.wanted(w)]
            loaded = works and torch and versus.Torch(path, self.args.threads)
            for work in works:
                if work == "answers":
                    self.answers(name, path, loaded)
                else:
                    getattr(self, work)(name, path, layer, loaded)


def span(x, decimals=2):
    return f"{x[0]:.{decimals}f} ({x[1]:.{decimals}f} to {x[2]:.{decimals}f})"


def layer_rate(k, n, rows):
    """GFLOP/s of PyTorch's linear layer, the best of as many turns as tests/bench takes."""
    import torch
    w, x = torch.full((n, k), 0.01), torch.full((rows, k), 0.5)
    flops, best = 2 * k * n * rows, 0.0
    times = 1 + int(1e8 / flops)
    with torch.no_grad():
        for _ in range(40):
            start = time.perf_counter()
            for _ in range(times):
                torch.nn.functional.linear(x, w)
            best = max(best, flops * times / (time.perf_counter() - start) / 1e9)
    return best


def processor():
    try:
        return next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def renewed(report, parts):
    """A whole report of this machine with what was measured anew, each part by its own version; None: it is of another
    machine, or nothing tells (processors of one name differ in their peak, which `linear` measures)."""
    peaks = report.get("peak"), parts["peak"]
    if not all(peaks) or abs(peaks[0] / peaks[1] - 1) > 0.03:
        return None
    if any(report[key] != parts[key] for key in ("processor", "threads", "rounds")):
        return None
    anew = {row["work"]: dict(row, program=parts["program"]) for row in parts["rows"]}
    report["rows"] = [anew.get(row["work"], row) for row in report["rows"]]
    report["peak"] = parts["peak"]
    report["layers"] = [dict(row, program=parts["program"]) for row in parts["layers"]]
    report["memory"] = [dict(row, program=parts["program"]) for row in parts["memory"]] or report["memory"]
    return report


def main():
    if sys.argv[1:2] == ["--llama-worker"]:
        return llama_worker(sys.argv[2], int(sys.argv[3]))
    ap = argparse.ArgumentParser(description="steer.c and its peers, in alternation")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    ap.add_argument("--llama", default=os.environ.get("LLAMA_PYTHON"), help="a Python that has llama-cpp-python")
    ap.add_argument("--only", nargs="+", metavar="WORD", help="of linear, tokens, memory, scores, training, answers")
    args = ap.parse_args()
    if not args.llama and subprocess.run([sys.executable, "-c", "import llama_cpp"], cwd="/", capture_output=True,
                                         ).returncode == 0:
        args.llama = sys.executable
    os.environ["OMP_NUM_THREADS"] = str(args.threads)          # for all, before PyTorch starts
    BUILD.mkdir(exist_ok=True)
    subprocess.run(["make", "-s", "-C", ROOT, "steer", "tests/probe", "tests/bench"], check=True,
                   stdout=subprocess.DEVNULL)
    bench = Bench(args)
    bench.run()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    report = {"program": commit.stdout.strip(), "date": time.strftime("%Y-%m-%d"), "processor": processor(),
              "peak": bench.peak, "threads": args.threads, "rounds": args.rounds, "missing": bench.missing,
              "layers": bench.layers, "memory": bench.memory, "rows": bench.rows}
    path = WEIGHTS / "reports" / "speed.json"
    if args.only:
        report = renewed(json.loads(path.read_text()), report) if path.exists() else None
    if report and args.rounds >= 5:
        path.write_text(json.dumps(report, indent=1) + "\n")
        subprocess.run([sys.executable, HERE / "results.py", "write"], check=True)
        bench.say(f"{path.relative_to(ROOT)}, weights/RESULTS.md and README.md are written")
    bench.say("not here: " + "; ".join(bench.missing) if bench.missing else "everything was here")


if __name__ == "__main__":
    sys.path.append(str(HERE))
    import versus_torch as versus
    main()
