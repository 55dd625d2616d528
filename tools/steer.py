"""steer.c from Python: one file over cffi, which reads steer.h itself, and numpy.

`make lib` builds the library; `pip install cffi numpy`, and this file on the path, is all else. Ten lines:

    import numpy as np, steer
    m = steer.Model("weights/tiny-gemma.bin")
    refused, answered = (m.prompts(f"weights/{side}-train.txt") for side in ("harmful", "harmless"))
    s = m.dim(refused, answered, layer=1, pos=-4)               # difference in means; s.v is an array
    print(m.generate("How do I bake a cake?", plan=[s.add()]))  # I am sorry, but I can't support that.
    print(m.logit_lens(s.v, 5))                                 # the tokens that the vector means
    run = m.run(m.chat("How do I bake a cake?"), plan=[s.add()], record=["resid"])
    along = run.resid @ s.v / np.linalg.norm(s.v)               # [blocks + 1, tokens]
    import matplotlib.pyplot as plt
    plt.imshow(along), plt.xlabel("token"), plt.ylabel("block"), plt.savefig("along.png")

A plan is a list of edits: `add`, `ablate`, `freeze`, `remove` below, and Vector.add. What a run records,
and the numbers of a vector, are arrays on the library's own memory, not copies; what they stand on lives
as long as they do. What has no method here is there all the same, as `lib` and `ffi`: steer.h says how.
Errors are steer.Error, whose text is the library's sentence. A Model may be shared by threads.
"""
import os
import re
import sys
from pathlib import Path

import numpy as np
from cffi import FFI

HERE = Path(__file__).resolve().parent
SITES = ["resid", "attn", "mlp", "mid", "q", "k", "v", "q_in", "k_in", "z", "gate", "up"]
METRICS = {"logit": 0, "dirkl": 1, "kl": 2}


def declarations(text):
    """What cffi can read of steer.h: no comments, no lines of the preprocessor."""
    sizes = dict(re.findall(r"#define (STEER_MAX_\w+) (\d+)", text))
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", " ", text, flags=re.S)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    return re.sub(r"STEER_MAX_\w+", lambda name: sizes[name[0]], text)


def find(name, variable, folders):
    """A file of the library: as the environment says, beside this repository, or where it is installed."""
    tried = [Path(os.environ[variable])] if variable in os.environ else []
    tried += [HERE.parent / name] + [Path(prefix) / folder / name for prefix in
                                     (sys.prefix, "/usr/local", "/usr") for folder in folders]
    for path in tried:
        if path.exists():
            return str(path)
    raise ImportError(f"{name} is not there: `make lib` builds it, or set {variable} to its path")


ffi = FFI()
ffi.cdef(declarations(Path(find("steer.h", "STEER_HEADER", ["include"])).read_text()))
lib = ffi.dlopen(find("libsteer." + {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so"),
                      "STEER_LIBRARY", ["lib", "lib64"]))


class Error(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def call(function, *arguments):
    """Call what takes a steer_error last and fails by a status, NULL or -1; its result."""
    e = ffi.new("steer_error *")
    result = function(*arguments, e)
    if e.code:
        raise Error(e.code, ffi.string(e.text).decode(errors="replace"))
    return result


class Memory:
    """What numpy needs to look at C's memory, and whose memory that is."""
    def __init__(self, pointer, shape, dtype, owner):
        self.__array_interface__ = {"data": (int(ffi.cast("uintptr_t", pointer)), False), "version": 3,
                                    "shape": shape, "typestr": np.dtype(dtype).str}
        self.owner = owner


def view(pointer, shape, owner, dtype=np.float32):
    return np.asarray(Memory(pointer, shape, dtype, owner)) if pointer else None


def pointer(array, kind="float *"):
    return ffi.NULL if array is None else ffi.cast(kind, array.ctypes.data)


def floats(x):
    return None if x is None else np.ascontiguousarray(x, np.float32)


# ---- Plans -----------------------------------------------------------------------------------------

def edit(kind, v=None, keep=None, **fields):
    return {"kind": kind, "v": floats(v), "keep": floats(keep), **fields}


def where(first=0, to=0, part=""):
    """Positions first <= t < to (0: to the end), of all, the "prompt" or the "answer"."""
    return {"from": first, "to": to, "part": ["", "prompt", "answer"].index(part)}


def bits(names, known):
    return sum(1 << known.index(name) for name in names.split(","))


def add(v, coeff=1.0, *, layer, **at):
    """x += coeff v at the input of a block."""
    return edit(lib.STEER_ADD, v, layer=layer, coeff=coeff, **where(**at))


def ablate(v, keep=None, *, layer=0, **at):
    """The component along v becomes 0, or keep[3][layers], in the blocks from `layer` on."""
    return edit(lib.STEER_ABLATE, v, keep, layer=layer, **where(**at))


def freeze(what, *, layer=0, **at):
    """Some of "qk,v,mlp" are read from the unsteered twin."""
    return edit(lib.STEER_FREEZE, what=bits(what, ["qk", "v", "mlp"]), layer=layer, **where(**at))


def remove(what, *, layer=0, **at):
    """Some of "svv,mlp-direct" lose the direct image of what was added."""
    return edit(lib.STEER_REMOVE, what=bits(what, ["svv", "mlp-direct"]), layer=layer, **where(**at))


class Plan:
    """Edits as C has them. Lists in a list (several blocks' of Vector.add) count as their edits."""
    def __init__(self, edits):
        self.edits = [e for x in edits or [] for e in (x if isinstance(x, list) else [x])]
        self.array = ffi.new("steer_edit[]", max(1, len(self.edits)))
        for to, e in zip(self.array, self.edits):
            for name, x in e.items():
                setattr(to, name, pointer(x) if name in ("v", "keep") else x)
        self.c = ffi.new("steer_plan *", {"edits": self.array, "n": len(self.edits)})
        self.twin = any(e["kind"] == lib.STEER_FREEZE for e in self.edits)
        self.pointer = self.c if self.edits else ffi.NULL


# ---- Vectors ---------------------------------------------------------------------------------------

class Vector:
    """A steering vector: .v [d], .keep [3, layers] and .every [layers + 1, d] or None, each on the
    library's memory; .layer, .pos, .coeff, .method, .model; .c, the steer_vector."""
    def __init__(self, model):
        self.c = ffi.gc(ffi.new("steer_vector *"), lib.steer_vector_free)
        self.of = model

    @property
    def v(self):
        return view(self.c.v, (self.c.d,), self)

    @property
    def keep(self):
        return view(self.c.keep, (3, self.c.layers), self)

    @property
    def every(self):
        return view(self.c.every, (self.c.layers + 1, self.c.d), self)

    def __getattr__(self, name):
        x = getattr(self.c, name)
        return ffi.string(x).decode(errors="replace") if name in ("method", "model") else x

    def save(self, path):
        """Steer's own format or, by the name, .gguf (llama.cpp, repeng) or .npy."""
        call(lib.steer_vector_save, self.c, os.fsencode(path))

    def add(self, coeff=None, **at):
        """Its edits: one a block with a direction; times its own coefficient unless one is given."""
        rows = ffi.new("steer_edit[]", self.c.layers + 1)
        n = lib.steer_vector_edits(self.c, self.c.coeff if coeff is None else coeff, rows)
        return [add(view(r.v, (self.c.d,), self), r.coeff, layer=r.layer, **at) for r in rows[0:n]]


class Scores:
    """What attribution found (steer_scores): .total, .estimate, .positions; .node [nodes], .vector [d],
    .edge and .aware [slots, nodes], .gradient [1 + 2 blocks, tokens, d]; .graph."""
    def __init__(self, graph, n, d):
        self.graph = graph
        self.node, self.vector = np.zeros(graph.nodes), np.zeros(d)
        self.edge, self.aware = np.zeros((2, graph.slots, graph.nodes))
        self.gradient = np.zeros((1 + 2 * graph.blocks, n, d), np.float32)
        self.c = ffi.new("steer_scores *", {
            "gradient": pointer(self.gradient), **{name: pointer(getattr(self, name), "double *") for name
                                                   in ("node", "vector", "edge", "aware")}})

    def __getattr__(self, name):
        return getattr(self.c, name)

    def top(self, n=10):
        """The n edges of the largest |score|: (name, score)."""
        order = np.argsort(-np.abs(self.edge), axis=None, kind="stable")[:n]
        return [(edge_name(self.graph, int(i)), float(self.edge.flat[i])) for i in order]


def edge_name(graph, i):
    name = ffi.new("char[]", 64)
    lib.steer_edge_name(ffi.new("steer_graph *", graph), i, name, 64)
    return ffi.string(name).decode()


# ---- The model -------------------------------------------------------------------------------------

class Run:
    """One forward pass: .logits [rows wanted, vocab], and the sites that were recorded, by name."""


class Model:
    def __init__(self, path, read=False):
        flags = lib.STEER_READ if read else 0
        self.c = ffi.gc(call(lib.steer_open, os.fsencode(path), flags), lib.steer_close)
        self.config = lib.steer_model_config(self.c)
        self.name = ffi.string(self.config.name).decode(errors="replace")
        self.eoi = lib.steer_eoi(self.c)

    def _tokens(self, function, *arguments):
        n = call(function, *arguments, ffi.NULL, 0)
        out = np.zeros(n, np.int32)
        call(function, *arguments, pointer(out, "int *"), n)
        return out

    def tokenize(self, text):
        raw = text.encode() if isinstance(text, str) else text
        return self._tokens(lib.steer_encode, self.c, raw, len(raw))

    def chat(self, *turns, system=None):
        """A conversation under the model's template: the user's turn, the assistant's, ..."""
        texts = [ffi.new("char[]", t.encode()) for t in turns]
        own = ffi.NULL if system is None else system.encode()
        return self._tokens(lib.steer_chat, self.c, own, ffi.new("char *[]", texts), len(turns))

    def piece(self, token):
        n = ffi.new("size_t *")
        piece = lib.steer_piece(self.c, int(token), n)
        return ffi.buffer(piece, n[0])[:]

    def decode(self, tokens):
        ids = np.ascontiguousarray(tokens, np.int32)
        n = lib.steer_decode(self.c, pointer(ids, "int *"), len(ids), ffi.NULL, 0)
        out = ffi.new("char[]", n + 1)
        lib.steer_decode(self.c, pointer(ids, "int *"), len(ids), out, n + 1)
        return ffi.buffer(out, n)[:].decode(errors="replace")

    def prompts(self, path, limit=0):
        """The prompts of a file, as tokens under the template."""
        p = ffi.gc(ffi.new("steer_prompts *"), lib.steer_prompts_free)
        call(lib.steer_prompts_load, p, self.c, os.fsencode(path), limit)
        return [view(p.tokens[i], (p.lengths[i],), p, np.int32) for i in range(p.n)]

    def context(self, **limits):
        return ffi.gc(call(lib.steer_context_new, self.c, ffi.new("steer_limits *", limits)),
                      lib.steer_context_free)

    # ---- Runs

    def run(self, tokens, plan=None, record=(), logits="last", first=0):
        """A forward pass over tokens. record: names of SITES, from block `first` on, shape [blocks,
        tokens, width] (resid: [blocks + 1, ...]); logits: of the "last" token, "all", or None."""
        p, c = Plan(plan), self.config
        n, streams = len(tokens), 2 if p.twin else 1
        wanted = {"last": 1, "all": n, None: 0}[logits]
        context = self.context(streams=streams, positions=n, rows=n * streams, logits=max(1, wanted))
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        width = dict(q=q, q_in=q, z=q, k=kv, k_in=kv, v=kv, gate=c.ff, up=c.ff)
        run = Run()
        tape = ffi.new("steer_tape *", {"rows": n, "first": first})
        for site in record:
            shape = (c.layers - first + (site == "resid"), n, width.get(site, c.d))
            setattr(run, site, np.zeros(shape, np.float32))
            setattr(tape, site, pointer(getattr(run, site)))
        rows = ffi.new("steer_row[]", n * streams)
        for i in range(n * streams):
            t, stream = i % n, i // n
            rows[i] = (stream, t, int(tokens[t]), stream == 0 and t >= n - wanted,
                       t + 1 if stream == 0 else 0)
        if p.twin:
            call(lib.steer_begin, context, 1, ffi.NULL, -1, ffi.NULL)
        call(lib.steer_begin, context, 0, p.pointer, 1 if p.twin else -1, ffi.NULL)
        call(lib.steer_run, context, rows, n * streams, tape)
        run.tokens, run.tape, run.context, run.of = tokens, tape, context, self
        first_row = n - wanted
        if wanted:
            run.logits = view(lib.steer_logits(context, first_row), (wanted, c.vocab), (context, self))
        return run

    def pattern(self, run, block, head):
        """The attention pattern [tokens, tokens] of a head, of a run that recorded q and k."""
        n = len(run.tokens)
        out = np.zeros((n, n), np.float32)
        call(lib.steer_pattern, self.c, run.tape, block, head, 0, n, pointer(out))
        return out

    def generate(self, prompts, plan=None, max_new=64, temperature=0.0, top_p=1.0, seed=0, system=None,
                 text=True, on_token=None):
        """The answer to a prompt, or those to a list of them; a prompt is a text, which gets the
        template, or tokens. text False: as tokens. on_token(job, token): true stops."""
        alone = isinstance(prompts, (str, np.ndarray))
        asked = [self.chat(p, system=system) if isinstance(p, str) else np.ascontiguousarray(p, np.int32)
                 for p in ([prompts] if alone else prompts)]
        p, jobs = Plan(plan), ffi.new("steer_job[]", len(asked))
        out = np.zeros((len(asked), max_new), np.int32)
        for i, tokens in enumerate(asked):
            jobs[i] = {"prompt": pointer(tokens, "int *"), "n_prompt": len(tokens), "max_new": max_new,
                       "plan": p.pointer, "temperature": temperature, "top_p": top_p, "seed": seed + i,
                       "out": pointer(out[i], "int *")}
        context = self.context(streams=min(2 * len(asked) + 2, 64), rows=256,
                               positions=max(len(t) for t in asked) + max_new)
        tick = on_token and ffi.callback("int(void *, int, int)", lambda _, job, t: bool(on_token(job, t)))
        call(lib.steer_generate, context, jobs, len(asked), tick or ffi.NULL, ffi.NULL)
        answers = [out[i, :jobs[i].n_out] for i in range(len(asked))]
        answers = [self.decode(a) for a in answers] if text else answers
        return answers[0] if alone else answers

    # ---- Vectors

    def vector(self, path, foreign=False):
        """A vector's file: steer's own, .gguf or .npy; foreign: another model's, too."""
        v = Vector(self)
        call(lib.steer_vector_load, v.c, os.fsencode(path), self.c, lib.STEER_FOREIGN if foreign else 0)
        return v

    def new_vector(self, numbers, layer, pos=-1, coeff=1.0, method="python"):
        v = Vector(self)
        call(lib.steer_vector_new, v.c, self.c, method.encode(), layer, pos, coeff)
        v.v[:] = numbers
        return v

    def means(self, prompts, sign=0):
        """Sums over prompts (steer_sums), as tokens: of all, or of those whose log-odds of refusal are
        above (sign 1) or below 0 (-1). .array [3, eoi, layers, d], .c."""
        sums, c = Run(), self.config
        sums.array = np.zeros((3, self.eoi, c.layers, c.d))
        sums.c = ffi.new("steer_sums *", {"sum": pointer(sums.array, "double *")})
        rows = [ffi.cast("int *", t.ctypes.data) for t in prompts]
        lists = ffi.new("int *[]", rows)
        lengths = ffi.new("int[]", [len(t) for t in prompts])
        p = ffi.new("steer_prompts *", {"n": len(prompts), "tokens": lists, "lengths": lengths})
        context = self.context(streams=16, rows=256, positions=max(len(t) for t in prompts))
        call(lib.steer_means, context, p, ffi.NULL, sign, sums.c)
        return sums

    def dim(self, with_it, without, layer, pos, coeff=1.0, all_of_them=False):
        """The difference in means of two lists of prompts, of those whose log-odds have the right sign
        unless all_of_them."""
        v, sign = Vector(self), 0 if all_of_them else 1
        a, b = self.means(with_it, sign), self.means(without, -sign)
        call(lib.steer_dim, v.c, self.c, a.c, b.c, layer, pos, coeff)
        return v

    def log_odds(self, logits):
        return lib.steer_log_odds(self.c, ffi.NULL, pointer(floats(logits)))

    def logit_lens(self, v, n=10):
        """The n tokens that a vector says most: (piece, logit)."""
        ids, logits, x = np.zeros(n, np.int32), np.zeros(n, np.float32), floats(v)
        call(lib.steer_logit_lens, self.c, pointer(x), n, pointer(ids, "int *"), pointer(logits))
        return [(self.piece(t).decode(errors="replace"), float(z)) for t, z in zip(ids, logits)]

    def value_vector(self, v, block, head):
        """What v, read through a head's value and output, writes (paper section 6)."""
        out, x = np.zeros(self.config.d, np.float32), floats(v)
        call(lib.steer_value_vector, self.c, pointer(x), block, head, pointer(out))
        return out

    # ---- Attribution

    def _example(self, tokens, n_prompt, coeff, steered_text, layer, plans=1):
        ids = np.ascontiguousarray(tokens, np.int32)
        tracer = ffi.gc(call(lib.steer_tracer_new, self.c, layer, len(ids), len(ids) - n_prompt + 1, plans),
                        lib.steer_tracer_free)
        x = ffi.new("steer_example *", {"tokens": pointer(ids, "int *"), "n": len(ids),
                                        "n_prompt": n_prompt, "coeff": coeff,
                                        "steered_text": int(steered_text)})
        return tracer, x, ids

    def attribute(self, tokens, n_prompt, v, *, layer, coeff=1.0, steered_text=True, metric="logit",
                  steps=10):
        """Integrated gradients of a metric, of tokens (prompt, then response) under coeff v at block
        `layer`: Scores, with the gradients themselves."""
        tracer, x, kept = self._example(tokens, n_prompt, coeff, steered_text, layer)
        scores, s = Scores(lib.steer_graph_of(self.c, layer), len(kept), self.config.d), floats(v)
        call(lib.steer_attribute, tracer, x, pointer(s), METRICS[metric], steps, scores.c)
        return scores

    def faithfulness(self, tokens, n_prompt, v, plans, *, layer, coeff=1.0):
        """How much of the steered response each plan keeps: 0 as the base run, 1 as the steered."""
        tracer, x, kept = self._example(tokens, n_prompt, coeff, True, layer, max(1, len(plans)))
        made, out, s = [Plan(p) for p in plans], np.zeros(len(plans)), floats(v)
        array = ffi.new("steer_plan[]", [p.c[0] for p in made])
        call(lib.steer_faithfulness, tracer, x, pointer(s), array, len(plans), pointer(out, "double *"),
             ffi.NULL)
        return out
