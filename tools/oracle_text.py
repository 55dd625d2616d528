"""The reference tokenizer: the vocabulary of a model file run by the `tokenizers` library.

oracle.py uses it for tests/golden/tokens.txt and for the chat prompts of the other files.
"""
import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

QWEN2_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
PRETOK = {1: [pre_tokenizers.Digits(individual_digits=True),
              pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)],
          2: [pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
              pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]}


class Text:
    """A model file's tokenizer and template, run by the `tokenizers` library."""

    def __init__(self, t, rule=None):
        assert rule or not t["nfc"]
        plain = [b for b in range(256) if 33 <= b < 127 or 161 <= b < 173 or b > 173]     # GPT-2's letters
        rest = [b for b in range(256) if b not in plain]                                 # for bytes
        letter = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}
        names = ["".join(letter[b] for b in raw) for raw in t["tokens"]]
        self.specials = {raw.decode(): i for i, raw in enumerate(t["tokens"]) if t["types"][i] == 1}
        vocab = {n: i for i, n in enumerate(names) if t["types"][i] == 0}
        assert all(vocab[names[l] + names[r]] == out for l, r, out in t["merges"])
        assert all(vocab[letter[b]] == i for b, i in enumerate(t["byte_tokens"]))
        merges = [(names[l], names[r]) for l, r, _ in t["merges"]]
        self.tok = Tokenizer(models.BPE(vocab=vocab | self.specials, merges=merges))
        self.tok.pre_tokenizer = pre_tokenizers.Sequence(PRETOK[rule or t["pretok"]])
        self.tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in self.specials])
        assert all(self.tok.token_to_id(s) == i for s, i in self.specials.items())
        self.template, self.trim = t["template"], t["trim"]

    def plain(self, text):
        """Token ids of a user's text: what looks like a special token stays text."""
        self.tok.encode_special_tokens = True
        return self.tok.encode(text, add_special_tokens=False).ids

    def chat(self, text, answer=""):
        """The template around a text. Only the template's own special tokens are special; ordinary text
        of the template that touches the user's is encoded together with it, as the library would."""
        p, text = self.template, text.strip() if self.trim else text
        before = p["start"] + p["user_pre"]
        if p["system"]:
            before = p["start"] + p["system_pre"] + p["system"] + p["system_post"] + p["user_pre"]
        after = p["user_post"] + p["assistant_pre"]
        ids, pending = [], ""
        for part, fixed in (before, True), (text, False), (after, True), (answer, False):
            while part:
                found = [(part.index(s), -len(s), s) for s in self.specials if s in part] if fixed else []
                at, _, special = min(found, default=(len(part), 0, ""))
                pending += part[:at]
                if special:
                    ids += self.plain(pending) + [self.specials[special]]
                    pending = ""
                part = part[at + len(special):]
        ids += self.plain(pending)
        whole = before + text + after + answer
        if not any(s in text + answer for s in self.specials):
            self.tok.encode_special_tokens = False
            assert ids == self.tok.encode(whole, add_special_tokens=False).ids, "template pieces"
        return ids


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
