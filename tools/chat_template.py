"""A Jinja chat template, cut into the eight strings that steer.c knows of it.

export.py runs this file as a process of its own, because a template comes from a file that nobody has
vouched for: jinja2's sandbox keeps it from everything but its text, and the limits below end it if it
does not end by itself.

    echo '{"source": "...", "bos": "...", "eos": "..."}' | python3 tools/chat_template.py

prints {"pieces": {...}, "trim": 0 or 1} or {"refused": "one sentence"}. Needs jinja2.
"""
import contextlib
import json
import resource
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

SECONDS, BYTES = 5, 1 << 30               # of computing, of memory
CHARACTERS = 1 << 16                      # of all pieces together


class Uncut(Exception):
    """The template is more than the eight strings can say."""


def renderer(source, bos, eos):
    """A function that renders messages as transformers' apply_chat_template does. What it raises
    depends on the template: any exception is possible."""
    def fail(message):
        raise jinja2.TemplateError(message)
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=["jinja2.ext.loopcontrols"])
    env.globals["raise_exception"] = fail
    template = env.from_string(source)

    def render(turns, answer_next, system=None):
        """turns: texts of user, assistant, user, ... in turn."""
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages += [{"role": "assistant" if i % 2 else "user", "content": s} for i, s in enumerate(turns)]
        return template.render(messages=messages, add_generation_prompt=answer_next, bos_token=bos,
                               eos_token=eos)
    return render


def joined(p, trim, turns, system=None):
    """What steer.c makes of the pieces: a conversation whose last turn is the user's."""
    def clean(s):
        return s.strip() if trim else s
    system = clean(p["system"] if system is None else system)
    out = p["start"] + (p["system_pre"] + system + p["system_post"] if system else "")
    for i, s in enumerate(turns):
        role = "assistant" if i % 2 else "user"
        out += p[role + "_pre"] + clean(s) + p[role + "_post"]
    return out + p["assistant_pre"]


def cut(render, bos):
    """(pieces, trim): the template rendered on marked texts and cut at the marks, then compared
    with the template on other conversations. The pieces are all that steer.c knows of it."""
    S, U, A, V = "@system@", "@user@", "@answer@", "@again@"

    def minus(s, prefix="", suffix=""):
        if not (s.startswith(prefix) and s.endswith(suffix) and len(s) >= len(prefix) + len(suffix)):
            raise Uncut
        return s[len(prefix):len(s) - len(suffix)]
    try:
        system = S if S in render([U], True, S) else None
    except Exception:
        system = None                             # Gemma's template takes no system prompt
    whole = render([U, A, V], True, system)
    p = {"user_post": render([U], False, system).partition(U)[2],
         "assistant_post": render([U, A], False, system).partition(A)[2]}
    p["assistant_pre"] = minus(whole.partition(V)[2], p["user_post"])
    p["user_pre"] = minus(whole.partition(A)[2].partition(V)[0], p["assistant_post"])
    lead = minus(render([U], False).partition(U)[0], "", p["user_pre"])
    p |= {"start": lead, "system_pre": "", "system": "", "system_post": ""}
    if system:
        head, _, rest = whole.partition(S)
        p["system_post"] = minus(rest.partition(U)[0], "", p["user_pre"])
        if not head.startswith(lead):             # lead holds a default system prompt
            p["start"] = bos if bos and lead.startswith(bos) and not p["user_pre"].startswith(bos) else ""
            p["system"] = minus(lead, head, p["system_post"])
        p["system_pre"] = minus(head, p["start"])
    trim = int("  x \n" not in render(["  x \n"], True))
    for text in ["What is two and two?", "  padded \n\n", "zwei\nZeilen, \u00e9l\u00e8ve \u4e2d\u6587"]:
        for n in (1, 3, 5):
            for sys_text in [None, "Be brief. " + text] if system else [None]:
                turns = [f"{text}{i}{text}" for i in range(n)]
                if render(turns, True, sys_text) != joined(p, trim, turns, sys_text):
                    raise Uncut
    return p, trim


def answer(source, bos, eos):
    try:
        render = renderer(source, bos, eos)
    except Exception as e:
        return {"refused": f"the chat template is not valid Jinja ({type(e).__name__}: {e})"}
    try:
        pieces, trim = cut(render, bos)
    except Uncut:
        return {"refused": "the chat template can't be cut into a fixed text before and after each turn"}
    except MemoryError:
        return {"refused": f"the chat template takes more than {BYTES >> 20} MB of memory"}
    except Exception as e:
        return {"refused": f"the chat template does not render a plain conversation ({type(e).__name__}: {e})"}
    text = "".join(pieces.values())
    if len(text) > CHARACTERS:
        return {"refused": f"the chat template writes {len(text)} characters around its turns"}
    if "\0" in text or any("\ud800" <= ch <= "\udfff" for ch in text):
        return {"refused": "the chat template writes a zero byte or half a surrogate pair"}
    return {"pieces": pieces, "trim": trim}


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
