"""A Jinja chat template, cut into the strings that steer.c knows of it.

export.py runs this file as a process of its own, because a template comes from a file that nobody has
vouched for: jinja2's sandbox keeps it from everything but its text, and the limits below end it if it
does not end by itself.

    echo '{"source": "...", "bos": "...", "eos": "..."}' | python3 tools/chat_template.py

prints {"pieces": {...}, "trim": 0, 1 or 2 (answers alone), "system_always": 0 or 1, "drop_thinking": 0 or 1,
"notes": [...]} or {"refused": "one sentence"}. "thinking": false asks for a template without it, "bare": true for one
without a system block. Needs jinja2.
"""
import contextlib
import datetime
import json
import os
import re
import resource
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

SECONDS, BYTES = 5, 1 << 30               # of computing, of memory
CHARACTERS = 1 << 16                      # of all pieces together


class Uncut(Exception):
    """The template is more than the strings can say."""


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %} marks what a model is trained on, and writes nothing."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


TODAY = datetime.date(2024, 7, 26)                # the day that Llama 3.2's template falls back on


def renderer(source, bos, eos, dated=None, **more):
    """A function that renders messages as transformers' apply_chat_template does, on one fixed day; a
    format that the template writes it in is put into `dated`. What it raises depends on the template: any
    exception is possible."""
    def fail(message):
        raise jinja2.TemplateError(message)
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=["jinja2.ext.loopcontrols", Generation])

    def strftime_now(form):
        if dated is not None:
            dated.add(TODAY.strftime(form))
        return TODAY.strftime(form)
    env.globals |= {"raise_exception": fail, "strftime_now": strftime_now}
    template = env.from_string(source)

    def render(turns, answer_next, system=None):
        """turns: texts of user, assistant, user, ... in turn."""
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages += [{"role": "assistant" if i % 2 else "user", "content": s} for i, s in enumerate(turns)]
        return template.render(messages=messages, add_generation_prompt=answer_next, bos_token=bos,
                               eos_token=eos, **more)
    return render


def joined(p, trim, turns, system=None, always=0, drop=0):
    """What steer.c makes of the pieces: a conversation whose last turn is the user's."""
    def clean(s, role=""):
        return s.strip() if trim == 1 or trim == 2 and role == "assistant" else s
    given = system is not None and (p["system_pre"] or p["system_post"])
    system = clean(system if given else p["system"])
    out = p["start"] + (p["system_pre"] + system + p["system_post"] if system or always or given else "")
    for i, s in enumerate(turns):
        role = "assistant" if i % 2 else "user"
        if role == "assistant" and drop and THOUGHT in s:
            s = s.rpartition(THOUGHT)[2].lstrip("\n")
        out += p[role + "_pre"] + clean(s, role) + p[role + "_post"]
    return out + p["answer_pre"]


THOUGHT = "</think>"


def cut(render, bos, with_system=True, inside=False):
    """The template rendered on marked texts and cut at the marks, then compared with the template on
    other conversations: pieces, and the switches of joined(). They are all that steer.c knows of it.
    inside: the system prompt stands in the first question's turn, behind what begins it (Mistral v0.2)."""
    S, U, A, V = "@system@", "@user@", "@answer@", "@again@"

    def minus(s, prefix="", suffix=""):
        if not (s.startswith(prefix) and s.endswith(suffix) and len(s) >= len(prefix) + len(suffix)):
            raise Uncut
        return s[len(prefix):len(s) - len(suffix)]
    try:
        system = S if with_system and S in render([U], True, S) else None
    except Exception:
        system = None                             # Gemma's template takes no system prompt
    whole = render([U, A, V], True, system)
    # What stands behind a turn whatever follows it: Phi 3 puts an end of text behind the last one
    after_user, after_answer = whole.partition(U)[2].partition(A)[0], whole.partition(A)[2].partition(V)[0]

    def shared(a, b):                             # whole marks only: both may go on with "<|"
        same = os.path.commonprefix([a, b])
        return same if same in (a, b) else re.sub(r"[^>\]\n]*$", "", same)
    p = {"user_post": shared(render([U], False, system).partition(U)[2], after_user),
         "assistant_post": shared(render([U, A], False, system).partition(A)[2], after_answer)}
    p["answer_pre"] = minus(whole.partition(V)[2], p["user_post"])
    p["assistant_pre"] = minus(after_user, p["user_post"])
    p["user_pre"] = minus(after_answer, p["assistant_post"])
    if inside:                                    # what begins a question ends what was before
        p |= {"user_pre": "", "assistant_post": p["assistant_post"] + p["user_pre"]}
    lead = minus(render([U], True).partition(U)[0], "", p["user_pre"])
    p |= {"start": lead, "system_pre": "", "system": "", "system_post": ""}
    always = 0
    if system:
        head, _, rest = whole.partition(S)
        p["system_post"] = minus(rest.partition(U)[0], "", p["user_pre"])
        if not head.startswith(lead):             # lead holds a default system prompt, or an empty one
            p["start"] = bos if bos and lead.startswith(bos) and not p["user_pre"].startswith(bos) else ""
            p["system"] = minus(lead, head, p["system_post"])
            always = int(not p["system"])
        p["system_pre"] = minus(head, p["start"])
    pad = "  x \n"
    trim = 1 if pad not in render([pad], True) else 2 * (pad not in render([U, pad, V], True))
    drop = int("@thought@" not in render([U, f"@thought@{THOUGHT}\n\n{A}", V], True))
    texts = ["What is two and two?", "  padded \n\n", "zwei\nZeilen, \u00e9l\u00e8ve \u4e2d\u6587", "\u00a0\x1cx\u3000",
             f"<think>\nso\n{THOUGHT}\n\nthus", "", "<b>[INST]</b>", "a {{ b }} {% c %}\n"]
    for text in texts:
        for n in (1, 3, 5):
            for sys_text in [None, "Be brief. " + text, text or None] if system else [None]:
                turns = [f"{text}{i}{text}" for i in range(n)]
                if render(turns, True, sys_text) != joined(p, trim, turns, sys_text, always, drop):
                    raise Uncut
    empty = not system or render([U], True, "") == joined(p, trim, [U], "", always, drop)
    return p, trim, always, drop, empty


def answer(source, bos, eos, thinking=True, bare=False):
    dated, notes = set(), []
    try:
        render = renderer(source, bos, eos, dated, **({} if thinking else {"enable_thinking": False}))
    except Exception as e:
        return {"refused": f"the chat template is not valid Jinja ({type(e).__name__}: {e})"}
    try:
        try:
            pieces, trim, always, drop, empty = cut(render, bos)
        except Uncut:
            try:
                pieces, trim, always, drop, empty = cut(render, bos, not bare, not bare)
            except Uncut:                         # Llama 2 also trims its system prompt with the question
                pieces, trim, always, drop, empty = cut(render, bos, False)
                notes.append("the template's system prompt is more than a text before and after it: the model file "
                             "takes none")
    except Uncut:
        return {"refused": "the chat template can't be cut into a fixed text before and after each turn"}
    except MemoryError:
        return {"refused": f"the chat template takes more than {BYTES >> 20} MB of memory"}
    except Exception as e:
        return {"refused": f"the chat template does not render a plain conversation ({type(e).__name__}: {e})"}
    if bare:
        start = bos if pieces["start"].startswith(bos) else ""
        pieces |= {"start": start, "system_pre": "", "system": "", "system_post": ""}
        always = 0
    if not empty and not bare:
        notes.append('the template leaves a system turn without a text out, and --system "" writes one')
    text = "".join(pieces.values())
    notes += [f"the template writes the day: {day} stands for it" for day in dated if day in text]
    if len(text) > CHARACTERS:
        return {"refused": f"the chat template writes {len(text)} characters around its turns"}
    if "\0" in text or any("\ud800" <= ch <= "\udfff" for ch in text):
        return {"refused": "the chat template writes a zero byte or half a surrogate pair"}
    return {"pieces": pieces, "trim": trim, "system_always": always, "drop_thinking": drop, "notes": notes}


def limit(what, most):
    """Lower a limit of this process, unless it is lower already."""
    soft, hard = resource.getrlimit(what)
    if soft == resource.RLIM_INFINITY or soft > most:
        with contextlib.suppress(ValueError, OSError):       # macOS refuses to limit memory
            resource.setrlimit(what, (most, hard))


if __name__ == "__main__":
    limit(resource.RLIMIT_CPU, SECONDS)
    limit(resource.RLIMIT_AS, BYTES)
    limit(resource.RLIMIT_CORE, 0)
    print(json.dumps(answer(**json.load(sys.stdin))))
