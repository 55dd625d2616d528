"""The tokenizer: token ids (tokens.txt) and the pre-tokenizer's pieces (split.txt).

tokens.txt: "rule N", then "text HEXBYTES" or "chat HEXBYTES" for the template around it, each with its
"ids ID...". split.txt: "text HEXBYTES", then for each rule the lengths in bytes of the pieces; "marks" is
rule 2 where marks are letters.
"""
import json

import numpy as np

import binfile
import export
import folder
from reference import ROOT, SPLITS, line, prompts, sizes
from reference_text import Text

WRITTEN = ["a", " ", "  ", "   x", "\n", "\n\n", " \n ", "\t", "\tx\t\ty", "\r\n",
           "a\r\nb\r\n\r\nc", "\r", "x \r\n y", "hello", " hello", "Hello world", "Hello  world",
           "Hello   world  ", "hello\n", "hello \n world", "hello\n\n\n   world", "a\n b", "a\n  b",
           "\n a", "x" + " " * 17 + "y", " " * 100, "\n" * 50, "0", "1234567890", "a1b2c3",
           "3.14159", "-12,345.67e-8", "room 101", " 42", "  42", "42 ", "v2.0.1-rc3",
           "½ ² Ⅷ ① ٣٤ ४५ 七", "x²+y³", "10km", "don't", "I'll we've they're he'd I'm it's can't",
           "'s", "''s", "'S 'T 'RE 'Ve 'M 'LL 'D", "o'clock 'tis", "'", "''", "don’t",
           "rock 'n' roll", "'sx 'tt 'red 'very", "it's1", "1's", " 's", " 'll", "!'s", "?!", "...",
           "Wait... what?!", "--", "a--b", "(x)", "[1, 2]", "!!!\n\n", " !?\n x", "...\r\n...",
           "a.b.c", "e-mail: me@example.com", "https://example.org/a?b=c&d=%20",
           "def f(x):\n    return x**2  # square\n", "int main(void) {\n\tputs(\"hi\");\n}\n",
           "<a href='#'>x</a>", "SELECT * FROM t WHERE a<=3;", "{\"k\": [1,2,{\"z\":null}]}",
           "$\\frac{1}{2}$", "a_b_c __init__", "C:\\dir\\f.txt", "\\x00\\u1234",
           "Sure! Here is how to bake a cake.", "I'm sorry, but I cannot help with that.",
           "First, gather what you need. Then, work slowly.", "HELLO THERE",
           "camelCaseAndPascalCase", "naïve café", "Zoë Ångström", "straße", "Ærøskøbing", "Łódź",
           "İstanbul ıI", "Привет, мир!", "Ещё раз", "Γειά σου", "שלום עולם", "مرحبا بالعالم",
           "नमस्ते दुनिया", "สวัสดีชาวโลก", "你好,世界。", "こんにちは世界", "カタカナ", "안녕하세요", "ქართული",
           "Հայերեն", "ትግርኛ", "ᏣᎳᎩ", "ᠮᠣᠩᠭᠣᠯ", "𐌰𐌱", "𝒳𝓎", "𠀀𠀁", "🙂", "🙂🙂", "👩‍👩‍👧‍👦", "🇫🇷🇩🇪", "👍🏽",
           "❤️", "a🙂b", " 🙂 ", "☺︎", "✓ done", "e\u0301", "a\u0308o\u0308", "\u0301", " \u0301x",
           "क\u094dष", "Z\u0351\u036b\u0343a", "\u1112\u1161\u11ab", "a\u00a0b", "\u00a0",
           "\u00a0\u00a0x", " \u00a0 x", "1\u202f000", "a\u2003b", "a\u3000b", "a\u2028b\u2029c",
           "a\u0085b", "a\u200bb", "a\u200db", "\ufeffx", "a\u180eb", "a\u1680b", "a\u2060b",
           "soft\u00adhyphen", "a\x0bb\x0cc", "\x1c\x1d\x1e\x1f", "\x00", "a\x00b", "\x01\x02\x7f",
           "\u0080\u009f", "\ufffd", "\uffff", "\U0010ffff", "\ue000", "<|endoftext|>",
           "<|im_start|>user\nhi<|im_end|>", "<bos>", "<end>", "<user>\nhi<end>\n<assistant>\n",
           "<pad>", "< end>", "<END>", "x<end>y<bos>", "[INST] x [/INST]", "<s></s>",
           "<start_of_turn>", "aaaa", "a" * 300, "ab" * 200, "ha" * 77 + "!", "the " * 80,
           "=" * 120, "-=" * 60, "1" * 90, "'" * 40, "\n \n" * 30, "é" * 60, "🙂" * 25, "!?" * 50,
           "A" * 33 + "b" * 31, "\t" * 20 + "x", "x\n" * 25, "don't" * 20,
           " " * 31 + "\n" + " " * 31, "zzyzx qwrtp xkcd", "١٢٣ abc", "a\u0661", "x\u0663y", "№ 5",
           "5€", "€5", "£3.50", "100%", "#tag @user", "~/.bashrc", "a&b|c^d", "«quoted» „text“",
           "“curly” ‘quotes’", "em—dash–en", "…", "•item", "→←↑↓", "∀x∈ℝ", "©®™", "°C", "µm", "ª º",
           "ǅ", "ʰ", "ꙮ", "ﬁ ﬂ", "Å", "Ω K"]
# Around these the template's own line break matters, or the text's end.
CHATS = ["Hello there", "Bake a cake.\n", "two\n\nlines", "  indented", "\n", "\n\nlate", "\t tab", "café 🙂", " ",
         "don't", "1 2 3", "x "]
# Qwen2's (?i:'s) folds case as Unicode does, and the long s folds to s.
LONG_S = ["it'\u017ft", "'\u017f x"]
# Marks, which Qwen3.5's words hold: in them, before and behind them, alone, behind digits, spaces, symbols
MARKED = [s for mark in ("\u0301", "\u0323\u0308", "\u094d", "\u0e34", "\u05b0", "\u20d0", "\ufe0f", "\U0001d165")
          for s in (f"a{mark}b", f"{mark}b", f"{mark}", f" {mark}", f"  {mark}x", f"1{mark}2", f"!{mark}", f"!!{mark}x!",
                    f"\n{mark}\n", f"'{mark}s", f"x'{mark}", f"\t{mark} {mark}")]
MARKED += ["\u0928\u092e\u0938\u094d\u0924\u0947", "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 12",
           "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "\u0645\u064e\u0631\u062d\u064e\u0628\u064b\u0627",
           "e\u0301le\u0300ve", "xe\u0301 ne\u0301e", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd"]


def strings(prompts):
    """The texts of tokens.txt: the list above, some prompts, and random mixtures."""
    out, rng = list(WRITTEN) + prompts, np.random.RandomState(12)
    pieces = WRITTEN[:180]
    for _ in range(50):
        out.append("".join(pieces[i] for i in rng.randint(len(pieces), size=rng.randint(2, 7)))[:120])
    blocks = [(32, 127), (32, 127), (9, 14), (0xA0, 0x180), (0x300, 0x370), (0x391, 0x3CA), (0x410, 0x450),
              (0x5D0, 0x5EB), (0x660, 0x66A), (0x905, 0x93A), (0x2000, 0x2030), (0x2150, 0x2190),
              (0x3041, 0x3097), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x1F600, 0x1F650), (0x1D400, 0x1D455)]
    for _ in range(40):
        ranges = [blocks[i] for i in rng.randint(len(blocks), size=rng.randint(5, 40))]
        out.append("".join(chr(rng.randint(*r)) for r in ranges))
    return out


def tokens_group():
    t = binfile.read(ROOT / "weights/tiny-llama.bin", tensors=False)[1]
    out = ["# Token ids by the `tokenizers` library, vocabulary and merges of weights/tiny-llama.bin:",
           "# rule N; then text HEXBYTES, or chat HEXBYTES for the template around it; then ids ID..."]

    def entry(key, s, ids):
        out.extend([f"{key} {s.encode().hex()}", " ".join(map(str, ["ids", *ids]))])
    for rule in 1, 2, 3:
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
    """The pre-tokenizer alone. The small vocabulary has no merge across the borders where the rules
    differ, so that tokens.txt can't tell them apart."""
    out = ["# text HEXBYTES, then for each rule the lengths in bytes of the pieces that it cuts the text into",
           "# (GPT-2 with single digits, Qwen2, Llama 3, Qwen3.5): rule1 N...   rule2 N...   rule3 N...   marks N..."]
    t, different, marked = binfile.read(ROOT / "weights/tiny-llama.bin", tensors=False)[1], 0, 0
    names = ["rule1", "rule2", "rule3", "marks"]
    rules = [Text(t, rule).tok.pre_tokenizer for rule in (1, 2, 3, "marks")]
    for s in strings([]) + LONG_S + MARKED:
        cut = [[len(piece) for piece, _ in rule.pre_tokenize_str(s)] for rule in rules]
        assert all(sum(n) == len(s.encode()) for n in cut)
        different += cut[0] != cut[1]
        marked += cut[1] != cut[3]
        out += [f"text {s.encode().hex()}"] + list(map(line, names, cut))
    assert different > 50 and marked > 50
    return out


def trained(spaces, words, user, marked):
    """A small tokenizer of the tokenizers library as a tokenizer.json: SentencePiece's BPE with byte
    fallback (spaces: its normalizer), or Llama 3's, which takes whole words (words: its pre-tokenizer), or
    the same with Qwen3.5's words and what they hold (marked)."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE(byte_fallback=bool(spaces)))
    if spaces:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        tok.pre_tokenizer = pre_tokenizers.Sequence(words)
    texts = [p for f in SPLITS for p, _ in prompts(f, 60)] + WRITTEN[:100] * 2 + marked * 4
    first = [f"<0x{b:02X}>" for b in range(256)] if spaces else []
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<s>", "</s>", *first], show_progress=False,
        initial_alphabet=[] if spaces else pre_tokenizers.ByteLevel.alphabet()))
    t = json.loads(tok.to_str())
    t["added_tokens"] = [a for a in t["added_tokens"] if a["content"] in ("<s>", "</s>")]
    t["normalizer"] = {"type": "Sequence", "normalizers": spaces} if spaces else None
    if spaces:
        t["pre_tokenizer"] = None
    else:                                         # words that no merges lead to are tokens all the same
        t["model"]["ignore_merges"] = True
        for s in "zqxj", "Ġzqxj", "123":
            t["model"]["vocab"].setdefault(s, len(t["model"]["vocab"]))
    tok = Tokenizer.from_str(json.dumps(t))
    tok.add_tokens([AddedToken(s, normalized=False) for s in user])
    tok.encode_special_tokens = True
    return tok


def pieces_group():
    """Tokenizers that tiny-llama's vocabulary can't stand for, each in a model file of one dimension."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    from reference_text import LLAMA3_WORDS, QWEN35_WORDS
    out = ["# Token ids by the `tokenizers` library. model NAME HEXBYTES: a model file; rule N: under another rule;",
           "# text HEXBYTES; ids ID..."]
    user = ["\n", "\n\n", "\n\n\n", "\t\t", "<b>", "<tool>", "<tool><b>"]
    hard = ["zqxj zqxj123", "1234 12 3", "x<tool><b><tool> \t\ty", "\n" * 8, "a\n\n\n\nb", "\u2581a\u2581\u2581b",
            "<s>x</s>", "<0x41>", "aaaaaaaaa", "\t\t\t", "hahahahaha", " <b> <b>", "<b>x", "<b> x<b>"]

    def answers(tok, texts, before=""):
        for s in texts:
            ids = tok.encode(before * (s != "") + s, add_special_tokens=False).ids
            out.extend([f"text {s.encode().hex()}", " ".join(map(str, ["ids", *ids]))])
    for name, *how, marked in [("spm", [folder.REPLACE], None, user, []),
                               ("spaced", [folder.PREPEND, folder.REPLACE], None, user[4:], []),
                               ("wholes", None, LLAMA3_WORDS, user[3:], []),
                               ("marks", None, QWEN35_WORDS, user[3:], MARKED)]:
        tok = trained(*how, marked)
        t, rows = json.loads(tok.to_str()), tok.get_vocab_size()

        class Source(folder.Folder):
            def __init__(self):
                self.facts, self.generation_config = {}, {"eos_token_id": 1}
                self.tokenizer_config = {"bos_token": "<s>", "eos_token": "</s>"}

            def vocabulary(self, rows):
                return self.from_tokenizers(t, rows)

            def chat_template(self):
                return ""
        export.say = lambda text: None
        v = export.read_tokenizer(Source(), rows)
        v["template"] = {"user_post": "</s>"}
        # Classes of what the texts below hold, and of ASCII
        points = {ord(c) for s in WRITTEN + marked for c in s} | set(range(128))
        classes = {c: k for first, last, k in v["unicode"] for c in range(first, last + 1) if c in points}
        config = sizes(1, 1, 1, 1, 2, 1, rows)
        shapes = {name: shape for *_, name, shape in binfile.tensor_list(config)}
        path = ROOT / "build" / "pieces.bin"
        path.parent.mkdir(exist_ok=True)
        binfile.write(path, config, v | {"unicode": [(c, c, classes[c]) for c in sorted(classes)]},
                      lambda name, a, b: np.ones((b - a, *shapes[name][1:]), np.float32), "f32", name)
        out.append(f"model {name} {path.read_bytes().hex()}")
        path.unlink()
        answers(tok, WRITTEN + hard + marked + [p for p, _ in prompts("harmless-val", 40)])
        if name != "spaced":
            continue
        # The other ways of putting a space: Metaspace's two, and sentencepiece's before all of a text
        for rule, scheme in (binfile.LACKING, "always"), (binfile.FIRST_LACKING, "first"), (binfile.TEXT_SPACED, None):
            other = Tokenizer.from_str(tok.to_str())
            other.encode_special_tokens = True
            other.normalizer = normalizers.Replace(" ", folder.LOW_LINE)
            if scheme:
                other.normalizer = normalizers.Sequence([])
                other.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
            out.append(f"rule {rule}")
            answers(other, WRITTEN[::2] + hard, "" if scheme else " ")
    return out
