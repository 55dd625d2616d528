"""The reference tokenizer: a vocabulary and merges, run by the `tokenizers` library.

Beside binfile.py it needs tokenizers and transformers' regular expressions of Qwen2's and Qwen3.5's words.
"""
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX as QWEN35_REGEX

import binfile

SMOLLM2_WORDS = [pre_tokenizers.Digits(individual_digits=True),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
QWEN2_WORDS = [pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
LLAMA3_WORDS = [pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")), "isolated"),
                QWEN2_WORDS[1]]
QWEN35_WORDS = [pre_tokenizers.Split(Regex(QWEN35_REGEX), "isolated"), QWEN2_WORDS[1]]
PRETOK = {1: SMOLLM2_WORDS, 2: QWEN2_WORDS, 3: LLAMA3_WORDS, "marks": QWEN35_WORDS}


def reference_tokenizer(text, types, merges, pretok, nfc):
    """A tokenizer of the tokenizers library as transformers builds it for these models: tokens in
    GPT-2's alphabet (special ones as they are), types as in binfile, merges as pairs of tokens.
    Look-alikes of special tokens stay text until add_specials() makes it match them."""
    vocab = {s: i for i, (s, t) in enumerate(zip(text, types)) if t != 2}
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(PRETOK[pretok])
    tok.decoder = decoders.ByteLevel()
    return tok


def tokenizer_of_bin(t, rule=None):
    """The tokenizer of a model file (see binfile.read), or its vocabulary under another rule of words."""
    text = ["".join(binfile.LETTER[b] for b in s) if k != 1 else s.decode()
            for s, k in zip(t["tokens"], t["types"])]
    vocab = {s: i for i, (s, k) in enumerate(zip(text, t["types"])) if k != 2}
    assert all(vocab[text[l] + text[r]] == out for l, r, out in t["merges"])
    assert all(vocab[binfile.LETTER[b]] == i for b, i in enumerate(t["byte_tokens"])
               if i != binfile.NO_TOKEN)
    return reference_tokenizer(text, t["types"], [(text[l], text[r]) for l, r, _ in t["merges"]],
                               rule or t["pretok"], t["nfc"])


def add_specials(tok, specials):
    """Match these strings as a whole wherever they stand."""
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])


class Text:
    """A model file's tokenizer and template, run by the `tokenizers` library."""

    def __init__(self, t, rule=None):
        self.specials = {raw.decode(): i for i, raw in enumerate(t["tokens"]) if t["types"][i] == 1}
        self.tok = tokenizer_of_bin(t, rule)
        add_specials(self.tok, self.specials)
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
