"""tools/steer.py against the goldens that judge the C library, and vectors in the gguf package and numpy.

    make lib steer && python tools/test_steer_py.py      numpy, cffi, gguf; last line: N passed, N failed
"""
import contextlib
import io
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import gguf
import numpy as np

import binfile
import steer

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
work = Path(tempfile.mkdtemp())
models = {}


def model(path):
    return models.setdefault(path, steer.Model(ROOT / path))


def cases(name):
    """The cases of a golden file: lists of (key, words)."""
    case = []
    for row in (GOLDEN / name).read_text().split("\n"):
        key, *words = row.split(" ")
        if key == "end":
            yield case
            case = []
        elif key and key != "#":
            case.append((key, words))


def near(what, got, wanted, bound):
    """Equal to within so much of the largest number (or of 1)."""
    got, wanted = np.asarray(got, float), np.asarray(wanted, float)
    assert got.shape == wanted.shape, f"{what}: {got.shape} for {wanted.shape}"
    off = np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max())
    assert off <= bound, f"{what}: {off:.2g} off"


def numbers(words):
    return np.array(words, np.float32)


def refuses(word, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except steer.Error as e:
        assert word in str(e) and e.code, f"{e} lacks {word}"
        return
    raise AssertionError(f"{function} takes {arguments}")


def test_tokens():
    """tokens.txt: the tokenizers library's ids, of text and of the template around it."""
    m, n = model("weights/tiny-llama.bin"), 0
    wanted = None
    for row in (GOLDEN / "tokens.txt").read_text().split("\n"):
        key, _, value = row.partition(" ")
        if key == "rule":
            rule = int(value)
        if key in ("text", "chat"):
            wanted = (key, bytes.fromhex(value))
        if key != "ids" or rule != m.config.pretok:
            continue
        kind, raw = wanted
        ids = [int(i) for i in value.split()]
        if kind == "text":
            assert m.tokenize(raw).tolist() == ids, raw
        elif b"\0" not in raw:
            assert m.chat(raw.decode()).tolist() == ids, raw
        n += 1
    assert n > 100
    text = "How do I bake a cake?"
    assert m.decode(m.tokenize(text)) == text and b"".join(m.piece(t) for t in m.tokenize(text)) == text.encode()


def test_runs():
    """box.txt: PyTorch's logits under each edit, of the models in the box."""
    n = 0
    for case in cases("box.txt"):
        x = dict(case)
        m, plan = model(x["model"][0]), []
        if "add" in x:
            layer, coeff = int(x["add"][0]), float(x["add"][1])
            plan.append(steer.add(numbers(x["vector"]), coeff, layer=layer))
        if "ablate" in x:
            keep = numbers(x["keep"]).reshape(3, -1) if "keep" in x else None
            plan.append(steer.ablate(numbers(x["vector"]), keep))
        if "freeze" in x:
            plan.append(steer.freeze(",".join(x["freeze"])))
        if "remove" in x:
            plan.append(steer.remove(x["remove"][0].replace("mlp", "mlp-direct")))
        tokens = np.array(x["tokens"], np.int32)
        run = m.run(tokens, plan, logits="all")
        for key, words in case:
            if key == "logits":
                near(x["case"][0], run.logits[int(words[0])], numbers(words[1:]), 1e-5)
                n += 1
    assert n >= 36


def test_tape():
    """What a run records is what the network computes, and no copy."""
    m = model("weights/tiny-gemma.bin")
    c, tokens = m.config, m.chat("How do I bake a cake?")
    run = m.run(tokens, record=steer.SITES[:7] + ["z", "gate", "up"], logits="all")
    assert run.resid.shape == (c.layers + 1, len(tokens), c.d) and run.gate.shape == (c.layers, len(tokens), c.ff)
    near("a block adds what attention does", run.mid, run.resid[:-1] + (run.mid - run.resid[:-1]), 0)
    _, _, tensors, _, _ = binfile.read(ROOT / "weights/tiny-gemma.bin")
    x = run.resid[-1]
    normed = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + c.norm_eps) * (c.norm_offset + tensors["final_norm"])
    z = normed @ tensors["embed" if c.tied else "unembed"].T
    near("logits of the last residual", run.logits, c.final_cap * np.tanh(z / c.final_cap) if c.final_cap else z, 1e-5)
    groups = c.heads // c.kv_heads
    for block in range(c.layers):
        for head in range(c.heads):
            a, d = m.pattern(run, block, head), c.head_dim
            v = run.v[block].reshape(len(tokens), c.kv_heads, d)[:, head // groups]
            near("z is the pattern's mixture of values", run.z[block, :, head * d:(head + 1) * d], a @ v, 1e-5)
    for site in ("resid", "q"):
        assert steer.pointer(getattr(run, site)) == getattr(run.tape, site), f"{site} is a copy"
    late = m.run(tokens, record=["resid"], first=4, logits=None)
    assert np.array_equal(late.resid, run.resid[4:])


def test_attribution():
    """patch.txt: scores by autograd in float64, of the models in the box; the gradient is theirs."""
    n = 0
    for case in cases("patch.txt"):
        x = dict(case)
        if "model" not in x or "total" not in x:
            continue
        m, s, a = model(x["model"][0]), numbers(x["vector"]), float(x["coeff"][0])
        layer, steered = int(x["layer"][0]), int(x["flag"][0])
        tokens, prompt = np.array(x["tokens"], np.int32), int(x["prompt"][0])
        scores = m.attribute(tokens, prompt, s, layer=layer, coeff=a, steered_text=steered,
                             metric=x["metric"][0], steps=int(x["steps"][0]))
        near("total", scores.total, float(x["total"][0]), 1e-5)
        near("nodes", scores.node, numbers(x["node"]), 2e-5)
        near("dimensions", scores.vector, numbers(x["dvector"]), 2e-5)
        for key, words in case:
            if key in ("official", "aware"):
                got = (scores.edge if key == "official" else scores.aware)[int(words[0])]
                near(f"{key} {words[0]}", got, numbers(words[1:]), 2e-5)
        sign = -1 if steered else 1
        near("gradient", sign * a * (s * scores.gradient[0]).sum(0), scores.vector, 1e-5)
        assert scores.top(1)[0][1] == scores.edge.flat[np.abs(scores.edge).argmax()]
        n += 1
    assert n >= 2


def test_vectors():
    """dim.txt: the difference in means by PyTorch; its logit lens and a value vector by numpy."""
    n = 0
    for case in cases("dim.txt"):
        x = dict(case)
        m, limit = model(x["model"][0]), int(x["prompts"][0])
        sides = [m.prompts(ROOT / f"weights/{side}-train.txt", limit) for side in ("harmful", "harmless")]
        for key, words in case:
            if key != "dim":
                continue
            s = m.dim(*sides, int(words[0]), int(words[1]), all_of_them=True)
            near("dim", s.v, numbers(words[2:]), 1e-5)
            n += 1
        _, _, tensors, _, _ = binfile.read(ROOT / x["model"][0])
        c = m.config
        z = s.v / np.sqrt((s.v ** 2).mean() + c.norm_eps) * (c.norm_offset + tensors["final_norm"])
        z = z @ tensors["embed" if c.tied else "unembed"].T
        lens = m.logit_lens(s.v, 5)
        near("lens", [logit for _, logit in lens], np.sort(z)[::-1][:5], 1e-5)
        assert lens[0][0] == m.piece(z.argmax()).decode(errors="replace")
        one = m.value_vector(s.v, 2, 1)
        assert one.shape == (c.d,) and np.isfinite(one).all() and one.any()
    assert n >= 16


def test_generation():
    """Answers are the program's; a plan changes them; a callback sees every token and may stop."""
    m, question = model("weights/tiny-gemma.bin"), "How do I bake a cake?"
    s = m.dim(*[m.prompts(ROOT / f"weights/{side}-train.txt") for side in ("harmful", "harmless")], 1, -4)
    path = str(work / "s.vec")
    s.save(path)
    for more, plan in (([], None), (["--vector", path], [s.add()]),
                       (["--vector", path, "--freeze", "v"], [s.add(), steer.freeze("v")])):
        said = subprocess.run([ROOT / "steer", "generate", ROOT / "weights/tiny-gemma.bin", question, *more],
                              capture_output=True, text=True, check=True).stdout
        assert m.generate(question, plan).strip() == said.strip(), f"{more}: {said}"
    several = m.generate([question, "How do I wash a car?"], [s.add()])
    assert len(several) == 2 and several[0] == m.generate(question, [s.add()])
    seen = []
    m.generate(question, on_token=lambda job, token: seen.append(token) or len(seen) == 3)
    assert m.generate(question, text=False).tolist()[:3] == seen
    answer = np.concatenate([m.chat(question), m.generate(question, [s.add()], text=False)])
    F = m.faithfulness(answer, len(m.chat(question)), s.v, [[steer.freeze("qk", layer=1)],
                                                           [steer.freeze("v", layer=1)]], layer=1)
    assert F[0] > 0.8 and F[1] < 0.3, F


def test_errors():
    m = model("weights/tiny-llama.bin")
    refuses("nowhere.bin", steer.Model, "nowhere.bin")
    refuses("block that does not exist", m.run, m.tokenize("a"), [steer.add(np.ones(m.config.d), layer=99)])
    refuses("site", m.new_vector, np.zeros(m.config.d), 99)
    refuses("not a steer", m.vector, ROOT / "README.md")


def test_formats():
    """What steer.c writes, the gguf package and numpy read, and back."""
    m = model("weights/tiny-gemma.bin")
    c = m.config
    s = m.new_vector(np.arange(c.d) - 3.5, 2, -3, 1.25)
    s.save(work / "one.gguf")
    reader = gguf.GGUFReader(work / "one.gguf")
    field = {name: f.contents() for name, f in reader.fields.items()}
    assert field["general.architecture"] == "controlvector" and field["controlvector.model_hint"] == m.name
    assert (field["controlvector.layer_count"], field["steer.block"], field["steer.position"],
            field["steer.coefficient"]) == (1, 2, -3, 1.25) and len(field["steer.keep"]) == 3 * c.layers
    t, = reader.tensors
    assert t.name == "direction.1" and np.array_equal(t.data, s.v) and t.data_offset % 32 == 0
    s.save(work / "one.npy")
    assert np.array_equal(np.load(work / "one.npy"), s.v)

    # As repeng's export_gguf and llama.cpp's cvector-generator write them.
    for alignment in (None, 64):
        rows = np.random.RandomState(2).randn(c.layers, c.d).astype(np.float32)
        writer = gguf.GGUFWriter(work / "all.gguf", "controlvector")
        writer.add_string("controlvector.model_hint", "gemma")
        writer.add_uint32("controlvector.layer_count", c.layers)
        if alignment:
            writer.add_custom_alignment(alignment)
        for n in reversed(range(c.layers)):
            writer.add_tensor(f"direction.{n}", rows[n])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        refuses("--foreign", m.vector, work / "all.gguf")
        v = m.vector(work / "all.gguf", foreign=True)
        assert np.array_equal(v.every[1:], rows) and not v.every[0].any() and v.keep is None
        assert [e["layer"] for e in v.add(2)] == list(range(1, c.layers + 1)) and v.model == "gemma"
        tokens = m.chat("How do I bake a cake?")
        plain, run = (m.run(tokens, p, record=["resid", "mlp"]) for p in (None, [v.add(0.5)]))
        near("the first block's input", run.resid[1], plain.resid[1] + 0.5 * rows[0], 1e-6)
        v.save(work / "again.gguf")
        again = {t.name: t.data for t in gguf.GGUFReader(work / "again.gguf").tensors}
        assert len(again) == c.layers and all(np.array_equal(again[f"direction.{n}"], rows[n]) for n in range(c.layers))
        v.save(work / "all.npy")
        assert np.array_equal(np.load(work / "all.npy"), v.every)
    for dtype, shape in ((np.float64, (c.layers, c.d)), (np.float32, (c.layers + 1, c.d)), (np.float64, (c.d,))):
        a = np.random.RandomState(3).randn(*shape).astype(dtype)
        np.save(work / "a.npy", a)
        v = m.vector(work / "a.npy", foreign=True)
        assert np.array_equal(v.every[:len(a)] if a.ndim > 1 else v.v, a.astype(np.float32))


def test_files_of_a_model():
    """A vector of one type of weights is taken by the others, whose numbers differ; not by another model."""
    made = binfile.read(ROOT / "weights/tiny-llama.bin")
    config, tokenizer, tensors, name, site = made
    vectors, opened = {}, {}
    for dtype in ("f32", "bf16", "q8"):
        binfile.write(work / f"{dtype}.bin", config, tokenizer, binfile.whole(tensors.get), dtype, name, site)
        opened[dtype] = m = steer.Model(work / f"{dtype}.bin")
        vectors[dtype] = work / f"{dtype}.gguf"
        m.new_vector(np.ones(m.config.d), 2).save(vectors[dtype])
    assert len({m.config.identity for m in opened.values()}) == 1
    assert len({m.config.fingerprint for m in opened.values()}) == 3
    for path in vectors.values():
        for m in opened.values():
            assert m.vector(path).keep is not None
    refuses("fingerprint", model("weights/tiny-llama-plain.bin").vector, vectors["f32"])
    other = model("weights/tiny-llama-plain.bin").vector(vectors["f32"], foreign=True)
    assert other.keep is None and other.fingerprint == opened["f32"].config.fingerprint


def test_example():
    """The lines in the head of tools/steer.py, from the root of the repository, as they stand."""
    lines = re.findall(r"^    (.+)$", steer.__doc__, re.M)
    assert 8 <= len(lines) <= 10 and "dim" in "".join(lines) and "savefig" in lines[-1]
    with contextlib.suppress(ImportError):
        import matplotlib
        matplotlib.use("Agg")
    code = "\n".join(lines).replace("weights/", f"{ROOT}/weights/").replace("along.png", f"{work}/along.png")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(code, {})
        assert (work / "along.png").stat().st_size > 1000
    except ImportError as e:
        assert "matplotlib" in str(e)
        print("      (no matplotlib: the example's picture is not drawn)")
    assert "I am sorry, but I can't support that." in said.getvalue() and "orry" in said.getvalue().split("\n")[1]


def test_install():
    """`make install` puts what another program needs, under DESTDIR, too."""
    where = work / "root"
    subprocess.run(["make", "-s", "install", f"DESTDIR={where}", "PREFIX=/opt/steer"], cwd=ROOT, check=True,
                   capture_output=True)
    have = sorted(str(p.relative_to(where)) for p in where.rglob("*") if p.is_file())
    library = Path(steer.find("libsteer." + {"darwin": "dylib"}.get(sys.platform, "so"), "STEER_LIBRARY", [])).name
    assert have == ["opt/steer/bin/steer", "opt/steer/include/steer.h", f"opt/steer/lib/{library}"], have


def main():
    passed = failed = 0
    for name, test in [(n, f) for n, f in globals().items() if n.startswith("test_")]:
        try:
            test()
            passed += 1
            print(f"ok    {name[5:]}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name[5:]}\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
