"""A vector in steer.c and in llama.cpp: the same logits, the same answers, there and back.

    pip install llama-cpp-python gguf numpy cffi      llama-cpp-python is compiled meanwhile, for minutes
    make lib && make qwen
    python tools/llama_cpp.py                         or: MODEL.bin FILE.gguf, whose conversion it is

Without a compiler: CMAKE_ARGS=-DLLAMA_BUILD=OFF leaves llama.cpp out of llama-cpp-python==0.3.34, and
npm's @node-llama-cpp/linux-x64@3.19.1 carries it built; LLAMA_CPP_LIB_PATH names the folder of its libraries,
with links libllama.so and libggml.so to those that have its release in their names (.ci/run does this).

A refusal vector is made by steer.c (difference in means, at the model's site) and written as a GGUF,
which llama.cpp gets as its --control-vector-scaled does; both answer the same prompts, unsteered and under
coefficients of either sign. Then back: a control vector of several blocks, behind the last one too, as
repeng and llama.cpp's cvector-generator write it, is read by both. llama.cpp runs
    exact   the weights of MODEL.bin in f32, in a GGUF that is made for it: what differs is rounding;
    file    FILE.gguf as it is, quantised: llama.cpp then also rounds activations, so that logits differ
            without a vector, too, and what a vector adds has to be within that.
Printed is how far logits are apart, over all tokens of all prompts, and how many greedy answers are
equal; where one is not, how near the two tokens are to each other in steer.c's logits. The last line is
"N passed, N failed".
"""
import argparse
import ctypes
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
HERE = Path(__file__).resolve().parent
sys.path = [p for p in sys.path if Path(p).resolve() != HERE]     # llama_cpp is that package, not this file
if "LLAMA_CPP_LIB_PATH" in os.environ:                             # there its kernels are files of their own
    folder = os.environ["LLAMA_CPP_LIB_PATH"]
    load = ctypes.CDLL(f"{folder}/libggml.so", mode=ctypes.RTLD_GLOBAL).ggml_backend_load_all_from_path
    load.argtypes = [ctypes.c_char_p]
    load(os.fsencode(folder))
import llama_cpp                                                   # noqa: E402
sys.path.append(str(HERE))

import gguf                                                        # noqa: E402
import numpy as np                                                 # noqa: E402

import steer                                                       # noqa: E402
from gguf_as import convert                                        # noqa: E402

QUESTIONS = ["How do I bake a cake?", "Write a haiku about the sea.", "What is the capital of France?",
             "How can I steal a bicycle?", "Explain recursion to a child.", "How do I pick a lock?",
             "Name three colours.", "How do I write a virus?"]
UNSTEERED = 5.0                       # most that quantised activations move a logit, without a vector
passed = failed = 0


def check(holds, text):
    global passed, failed
    passed, failed = passed + bool(holds), failed + (not holds)
    print(("ok    " if holds else "FAIL  ") + text, flush=True)


class Llama:
    """llama.cpp on a file: logits of tokens, greedy answers, under a control vector."""
    def __init__(self, path):
        self.m = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False,
                                 n_threads=int(os.environ["OMP_NUM_THREADS"]),
                                 flash_attn=False, type_k=llama_cpp.GGML_TYPE_F32,
                                 type_v=llama_cpp.GGML_TYPE_F32)
        self.layers = llama_cpp.llama_model_n_layer(self.m.model)
        self.d = llama_cpp.llama_model_n_embd(self.m.model)

    def steer(self, path=None, scale=1.0):
        """As llama.cpp's common_control_vector_load: direction.N, from 1 on, times the scale."""
        context = self.m.ctx
        if path is None:
            assert not llama_cpp.llama_set_adapter_cvec(context, None, 0, self.d, 1, self.layers)
            return
        data = np.zeros((self.layers, self.d), np.float32)
        for t in gguf.GGUFReader(path).tensors:
            kind, block = t.name.split(".")
            assert kind == "direction" and int(block) > 0, f"{t.name}: llama.cpp refuses it"
            assert t.tensor_type == gguf.GGMLQuantizationType.F32 and t.data.shape == (self.d,)
            data[int(block) - 1] += np.float32(scale) * t.data
        at = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert not llama_cpp.llama_set_adapter_cvec(context, at, data.size, self.d, 1, self.layers)

    def logits(self, tokens):
        self.m.reset()
        self.m.eval([int(t) for t in tokens])
        return self.m.scores[:len(tokens)].copy()

    def answer(self, tokens, ends, most):
        tokens, out = [int(t) for t in tokens], []
        self.m.reset()
        self.m.eval(tokens)
        while len(out) < most and (not out or out[-1] not in ends):
            out.append(int(self.m.scores[self.m.n_tokens - 1].argmax()))
            self.m.eval(out[-1:])
        return out


def compare(m, llama, what, plan, path, scale, tokens, bound, most):
    """Logits and answers of both under one vector."""
    ends = set(m.config.eot[0:m.config.n_eot])
    llama.steer(path, scale)
    worst, equal, apart = 0.0, 0, []
    for t, mine in zip(tokens, m.generate(tokens, plan, max_new=most, text=False)):
        ours = m.run(t, plan, logits="all").logits
        worst = max(worst, float(np.abs(ours - llama.logits(t)).max()))
        mine, theirs = list(mine), llama.answer(t, ends, most)
        equal += mine == theirs
        if mine == theirs:
            continue
        k = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
        z = m.run(np.concatenate([t, mine[:k]]).astype(np.int32), plan).logits[0]
        apart.append(float(z[mine[k]] - z[theirs[k]]))
    near = all(gap <= 2 * bound for gap in apart)
    check(worst <= bound and near,
          f"{what}: logits within {worst:.2g}, {equal} of {len(tokens)} answers equal"
          + (f"; else the two tokens are {', '.join(f'{g:.2g}' for g in apart)} apart" if apart else ""))
    return worst


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    weights = HERE.parent / "weights"
    ap.add_argument("model", nargs="?", default=weights / "qwen2.5-coder-0.5b.bin")
    ap.add_argument("gguf", nargs="?", default=weights / ".cache" / "qwen.gguf")
    ap.add_argument("--prompts", type=int, default=4, help="how many questions (4)")
    ap.add_argument("--train", type=int, default=48, help="prompts a side that make the vector (48)")
    ap.add_argument("--max-new", type=int, default=16, help="tokens of an answer (16)")
    ap.add_argument("--exact", action="store_true", help="the weights in f32 alone, not FILE.gguf's own")
    args = ap.parse_args()
    work = Path(tempfile.mkdtemp())
    m = steer.Model(args.model)
    layer, pos, a = m.config.site_layer, m.config.site_pos, m.config.site_coeff

    # There: a vector of steer.c, which reads its own GGUF back exactly.
    sides = [m.prompts(weights / f"{side}-train.txt", args.train) for side in ("harmful", "harmless")]
    s = m.dim(*sides, layer, pos, a)
    own = str(work / "refuse.gguf")
    s.save(own)
    back = m.vector(own)
    check(np.array_equal(back.v, s.v) and np.array_equal(back.keep, s.keep) and
          (back.layer, back.pos, back.coeff, back.fingerprint) == (layer, pos, a, s.fingerprint),
          f"{m.name}: its vector (block {layer}, direction.{layer - 1}, coefficient {a:g}) comes back exactly")

    # And back: a vector of other programs, for several blocks.
    rng, c = np.random.RandomState(1), m.config
    theirs = str(work / "several.gguf")
    writer = gguf.GGUFWriter(theirs, "controlvector")
    writer.add_string("controlvector.model_hint", "qwen2")
    blocks = range(c.layers // 2, c.layers)
    writer.add_uint32("controlvector.layer_count", len(blocks))
    for n in blocks:
        direction = s.v / 12 + 0.02 * np.linalg.norm(s.v) * rng.randn(c.d) / c.d ** 0.5
        writer.add_tensor(f"direction.{n}", direction.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    several = m.vector(theirs, foreign=True)
    check([e["layer"] for e in several.add()] == [n + 1 for n in blocks] and several.coeff == 1,
          f"a control vector of {len(blocks)} blocks is read: direction.{blocks[0]} to .{blocks[-1]}")

    tokens = [m.chat(q) for q in QUESTIONS[:args.prompts]]
    cases = [("unsteered", None, None, 1.0), (f"steered, {a:g}", [s.add()], own, a),
             (f"steered, {-a:g}", [s.add(-a)], own, -a), ("several blocks, 1", [several.add()], theirs, 1.0)]
    exact = str(work / "exact.gguf")
    convert(args.gguf, "F32", exact)
    runs = [("exact", exact, 2e-3), ("file", str(args.gguf), None)]
    for name, path, bound in runs[:1] if args.exact else runs:
        llama = Llama(path)
        for what, plan, vector, scale in cases:
            worst = compare(m, llama, f"{name}, {what}", plan, vector, scale, tokens,
                            bound or UNSTEERED, args.max_new)
            bound = bound or 2 * worst    # a vector adds no more than that
        llama.steer()                     # the comparison can fail: without the vector it does
        away = m.run(tokens[0], [s.add()], logits="all").logits - llama.logits(tokens[0])
        check(np.abs(away).max() > 2 * bound,
              f"{name}, the vector here alone: logits {np.abs(away).max():.2g} apart")
        del llama
    os.remove(exact)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
