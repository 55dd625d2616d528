"""Writes the tables of README.md and weights/RESULTS.md from the reports in weights/reports.

    python tools/results.py keep REPORT.json NAME [OPTION...]      a run's report joins them
    python tools/results.py write                                  the tables, into both files
    python tools/results.py check                                  are they what would be written?

A report is what `./steer reproduce ... --report` leaves. `keep` drops the answers to harmful prompts and the
folders of its command, adds the prompt files' numbers and checksums, where these and the weights come from and,
in words, what other runs did of which the report can't tell, and refuses more than 300 KB:

    report.json box
    qwen.json qwen-0.5b --data DIR --origin TEXT --prompts FILE=TEXT... [--besides TEXT]
    french.json french --data weights/french.jsonl weights/english.jsonl weights/french.txt --origin TEXT
        --prompts =TEXT

FILE is how files' names begin that come from there. In the two files, what stands between marks is written here:

    <!-- NAME: made -->             how the report was made
    <!-- NAME: TABLE... -->         these tables, each for every model
    <!-- NAME: concluded -->        what the program concludes
    <!-- NAME: why -->              what may explain where it is not as in the paper: the base rate, the site and the
                                    map's others, directions, places, tokens
    <!-- NAME: lost -->             a sentence of what freezing takes
    <!-- findings: NAME... -->      findings, a column for each model
    <!-- claims: NAME... -->        all that is concluded, a row for each claim and model
    <!-- times: NAME... -->         what the runs took
    <!-- NAME: columns -->          of what tools/paper_sizes.py --report left
    <!-- speed: all, short -->      of what tools/bench.py left in speed.json, or in another report: one of the two
    <!-- checked: models -->        of what tools/checked.py kept in checked.json: a row for each kind of model

and `<!-- end -->`.

Standard library only.
"""
import argparse
import hashlib
import json
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
REPORTS = TOP / "weights" / "reports"
FILES = TOP / "README.md", TOP / "weights" / "RESULTS.md"
LARGEST = 300 * 1000
STRONGEST = 30


# ---------------------------------------------------------------- a report, kept

def prompt_files(place):
    """The prompt files of a folder, or one: name, number of prompts, SHA-256."""
    place = pathlib.Path(place)
    for path in sorted(place.iterdir()) if place.is_dir() else [place]:
        if path == place or re.fullmatch(r"(harmful|harmless)[-_](train|val|test)\.(txt|jsonl)", path.name):
            data = path.read_bytes()
            yield {"file": path.name, "prompts": sum(bool(line.strip()) for line in data.splitlines()),
                   "sha256": hashlib.sha256(data).hexdigest()}


def keep(path, name, data, prompts, **texts):
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    report["command"] = re.sub(r"(?<= )/\S*/(?=\S)", "", report["command"])  # places of the machine it ran on
    for model in report["models"]:
        model["answers"] = [a for a in model["answers"] if a["side"] == "harmless"]
    report["prompt files"] = [one for place in data for one in prompt_files(place)]
    for one in report["prompt files"]:
        origins = [text for start, text in prompts if one["file"].startswith(start)]
        if not origins:
            sys.exit(f"{one['file']}: --prompts says nothing of where it comes from")
        one["origin"] = origins[-1]
    report.update({key: text for key, text in texts.items() if text})
    text = json.dumps(report, ensure_ascii=False, separators=(",", ":"))
    text = text.replace('],[', '],\n[').replace('},{', '},\n{') + "\n"  # lines that a diff can show
    if len(text.encode()) > LARGEST:
        sys.exit(f"{path}: {len(text.encode())} bytes, more than {LARGEST}")
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / f"{name}.json").write_text(text, encoding="utf-8")


def read(name):
    path = REPORTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"{path.relative_to(TOP)} is missing")
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- tables as text

def cell(value, column):
    if value is None:
        return "-"
    if column["type"] == "text":  # a token may be a line's end
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return f"{value:.{column['decimals']}f}"


def as_text(table):
    """The table's title, head and rows, its numbers to the right; of a list of edges the strongest, without the
    numbers that the page draws them by."""
    columns, data = table["columns"], table["rows"]
    if table["name"] == "circuit":
        columns, data = columns[:2], data[:STRONGEST]
    rows = [[c["name"] for c in columns]]
    rows += [[cell(value, c) for value, c in zip(row, columns)] for row in data]
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    lines = [table["title"]]
    for row in rows:
        cells = [text.ljust(width) if column["type"] == "text" else text.rjust(width)
                 for text, width, column in zip(row, widths, columns)]
        lines.append("  ".join(cells).rstrip())
    return lines


def tables(report, names):
    """Of each model these tables, the notes of the report that stand before the first one and behind each."""
    for model in report["models"]:
        lines = [model["name"]]
        before = [t["notes before"] for t in model["tables"]] + [len(model["notes"])]
        for i, table in enumerate(model["tables"]):
            if table["name"] not in names:
                continue
            if i == 0:
                lines += model["notes"][:before[0]]
            lines += ([""] if len(lines) > 1 else []) + as_text(table) + model["notes"][before[i]:before[i + 1]]
        if len(lines) > 1:
            yield lines


def fenced(blocks):
    lines = []
    for block in blocks:
        lines += ([""] if lines else []) + block
    return "\n".join(["```"] + lines + ["```"])


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} minutes"


def took(model):
    """What all runs took that filled the model's store, and what of it is not known."""
    if "spent" not in model:
        return ["-"] * 5
    spent = model["spent"]
    unknown = f"{spent['recalled']} answers and scores of a store" if spent["recalled"] else "nothing"
    if spent["runs"] > 1:  # the earlier runs' may be among those
        unknown = "can't be told"
    return [str(spent["runs"]), duration(spent["seconds"]), duration(spent["processor seconds"]),
            f"{spent['memory'] / 1e9:.2f} GB", unknown]


def times(names):
    lines = ["| model | runs | by the clock | of processors | most memory, the file's pages too | not counted |",
             "|---|---|---|---|---|---|"]
    for name in names:
        for model in read(name)["models"]:
            lines.append("| " + " | ".join([f"{model['name']} ({name})", *took(model)]) + " |")
    return "\n".join(lines)


def made(report):
    """How a report was made: a line for each fact."""
    lines = [f"    {report['command']}", ""]
    lines.append(f"Printed by {report['program']} on {report['date'][:10]}"
                 + (f", by a run of {duration(report['seconds'])}." if report.get("seconds") else "."))
    for model in report["models"]:
        counts = "; ".join(f"{name} {' + '.join(map(str, n.values()))}" for name, n in model["prompts"].items())
        lines.append(f"{model['name']}: fingerprint {model['fingerprint']}; prompts {counts}.")
        if "spent" in model:
            lines[-1] += " Runs: {}; {} by the clock, {} of processors, at most {} resident; not counted: {}.".format(
                *took(model))
    lines += [report["besides"]] if "besides" in report else []
    lines += [f"Weights: {report['origin of the weights']}."]
    lines += ["", "| prompts | origin | number | SHA-256 |", "|---|---|---|---|"]
    lines += [f"| {f['file']} | {f['origin']} | {f['prompts']} | {f['sha256']} |" for f in report["prompt files"]]
    return "\n".join(lines)


def concluded(report):
    for model in report["models"]:
        yield [model["name"]] + [f"{f['claim']}: {f['verdict']}; {f['text']}" for f in model["findings"]]


def columns(report):
    """Figures that are text already, a column for each model."""
    models = report["models"]
    lines = ["| | " + " | ".join(m["title"] for m in models) + " |", "|---" * (len(models) + 1) + "|"]
    for rows in zip(*(m["rows"] for m in models), strict=True):
        lines.append("| " + " | ".join([rows[0][0]] + [figures for _, figures in rows]) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------- the README's table and sentences

def rows_of(model, name):
    """{row: {column: value}} of a table, {} where the model has none."""
    for table in model["tables"]:
        if table["name"] == name:
            columns = [c["name"] for c in table["columns"]]
            return {row[0]: dict(zip(columns, row)) for row in table["rows"]}
    return {}


def finding(model, claim):
    found = [f for f in model["findings"] if f["claim"].startswith(claim)]
    return found[0] if found else None


def verdict(model, claim):
    found = finding(model, claim)
    short = {"holds in part": "in part", "can't be told": "open"}
    return short.get(found["verdict"], found["verdict"]) if found else "-"


def interval(value, low, high, decimals):
    if value is None or low is None or high is None:  # infinite bounds: nothing is known
        return "-" if value is None else f"{value:.{decimals}f} [too few]"
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def sentence(report):
    for model in report["models"]:
        at_most, *frozen = [lost(row)(model) for row in ("unsteered", "patterns frozen (QK)", "values frozen (OV)",
                                                         "MLP outputs frozen")]
        yield ("Of {} points frozen patterns lose {}, values {}, MLP outputs {}. That it acts through values: {}."
               .format(at_most, *frozen, verdict(model, "Steering acts through values")))


def lost(row):
    def text(model):
        found = rows_of(model, "freezing").get(row)
        return interval(found["loss"], found["loss low"], found["loss high"], 1) if found else "-"
    return text


def random_vectors(model):
    """As the finding says it: on the prompts that the random vectors have."""
    found = finding(model, "It is the direction")
    said = found and re.search(r" move (-?[\d.]+) points", found["text"])
    return said[1] if said else "-"


def site_by_rule(model):
    """What the paper's selection rule holds against the reported site."""
    found = finding(model, "The vector is of the site")
    said = found and re.search(r" (?:passes|does not pass \(([^()]*)\)):", found["text"])
    return (said[1] or "passes") if said else "-"


def smallest(model):
    circuit = model.get("circuit")
    return f"{100 * circuit['edges'] / circuit['of']:.1f} %" if circuit else "-"


def number(claim, which, decimals):
    """The least of a finding's numbers with this in their names, with its interval."""
    def text(model):
        found = finding(model, claim)
        numbers = [n for n in found["numbers"] if which in n["name"] and n["value"] is not None] if found else []
        if not numbers:
            return "-"
        least = min(numbers, key=lambda n: n["value"])
        return interval(least["value"], least["low"], least["high"], decimals)
    return text


def overlap(model):
    """Of the two methods whose circuits share fewest edges."""
    rows = rows_of(model, "overlaps").values()
    least = min(rows, key=lambda row: row["overlap"], default=None)
    return interval(least["overlap"], least["low"], least["high"], 2) if least else "-"


def zeroed(model):
    found = finding(model, "Most of the vector can be zeroed")
    return f"{100 * found['numbers'][0]['value']:.0f} %" if found else "-"


def same_dimensions(model):
    found = finding(model, "Methods keep the same dimensions")
    return re.match(r"\d+ of \d+", found["text"])[0] if found else "-"


def prompts(model):
    """Test prompts, and answers that judge DIM's circuits."""
    judged = rows_of(model, "judged").get("DIM, the smallest")
    test = " + ".join(str(n) for n in model["prompts"]["test"].values())
    return f"{test}; {judged['harmful']:.0f} + {judged['harmless']:.0f}" if judged else test


FINDINGS = [  # a row's name, its figure, the claim whose verdict stands behind it
    ("test prompts; answers that judge circuits", prompts, None),
    ("the reported site by the paper's rule", site_by_rule, "The vector is of the site"),
    ("steering moves, points of refusal (89.75)", lost("unsteered"), None),
    ("random vectors of its norm move", random_vectors, "It is the direction"),
    ("patterns frozen lose (8.75)", lost("patterns frozen (QK)"), "Steering hardly acts through"),
    ("values frozen lose (71.75)", lost("values frozen (OV)"), "Steering acts through values"),
    ("direct image removed from values (54.75)", lost("SVV removed"), "The vector's direct image"),
    ("... from MLP inputs (44.50)", lost("MLP direct removed"), None),
    ("MLP outputs frozen", lost("MLP outputs frozen"), None),
    ("a tenth of the edges keeps, on answers that chose none (0.85)", number("A tenth of the edges", "a tenth", 2),
     "A tenth of the edges"),
    ("DIM's smallest circuit that keeps 0.85 of what chose it (10.2 and 10.8 %)", smallest, None),
    ("random circuits of twice that size keep (under 0.1)", number("Random circuits", "DIM", 2), "Random circuits"),
    ("a circuit under another vector keeps (most)", number("Different methods' vectors", "under", 2),
     "Different methods' vectors"),
    ("... and shares of its edges (about 0.9)", overlap, None),
    ("entries zeroed with refusal kept (90 to 99 %)", zeroed, "Most of the vector can be zeroed"),
    ("methods keep the same dimensions (p < 0.05)", same_dimensions, "Methods keep the same dimensions"),
]


def findings(names):
    models = [model for name in names for model in read(name)["models"]]
    names = [re.sub(r"^Qwen2.5-Coder-([\d.]+B)-Instruct$", r"Qwen \1", model["name"]) for model in models]
    lines = ["| finding (the paper's figure) | " + " | ".join(names) + " |",
             "|---" * (len(models) + 1) + "|"]
    for row, figure, claim in FINDINGS:
        if claim and not any(finding(model, claim) for model in models):
            sys.exit(f"no report concludes: {claim}")
        cells = []
        for model in models:
            text = figure(model)
            cells.append(f"{text}, {verdict(model, claim)}" if claim and text != "-" else text)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------- what the paper found, and why not here

PAPER = re.compile(r" \(paper: ([^()]*)\)")


def claims(names):
    """All that the program concludes: a row for each claim and model, the paper's figures in the first."""
    models = [(name, model) for name in names for model in read(name)["models"]]
    lines = ["| finding | the paper | model | verdict | figures, with 95 % intervals |", "|---|---|---|---|---|"]
    for claim in dict.fromkeys(f["claim"] for _, model in models for f in model["findings"]):
        rows = [(name, model["name"], finding(model, claim)) for name, model in models if finding(model, claim)]
        papers = [match[1] for _, _, f in rows if (match := PAPER.search(f["text"]))]
        first = [claim, papers[0] if papers else "-"]
        for name, model, found in rows:
            label = model if name == "box" else f"{model} ({name})"
            cells = [*first, label, f"**{found['verdict']}**", PAPER.sub("", found["text"])]
            lines.append("| " + " | ".join(cells) + " |")
            first = ["", ""]
    return "\n".join(lines)


def of(row, value, low, high, decimals):
    return interval(row[value], row[low], row[high], decimals)


def directions_of(rows, name):
    """The rows `NAME, harmless +` and `NAME, harmful -`, or what else the sides are called."""
    return {label.split(", ")[1]: row for label, row in rows.items() if re.fullmatch(name + ", .* [+-]", label)}


def base_rate(tables):
    (side, plain), (other, without) = [(label.split()[0], row) for label, row in tables["steering"].items()
                                       if label.endswith(" unsteered")]
    shown = "refused" if "refused" in plain else "shown"
    most = 50 * (plain[shown] + 1 - without[shown])
    moved = of(tables["freezing"]["unsteered"], "loss", "loss low", "loss high", 1)
    return (f"Base rate: unsteered answers show the behaviour in {of(plain, shown, 'low', 'high', 2)} ({side}) and in "
            f"{of(without, shown, 'low', 'high', 2)} ({other}), so steering can move at most {most:.1f} points; it "
            f"moves {moved}.")


def by_direction(tables):
    qk, ov = [tables["directions"][row] for row in ("patterns frozen (QK)", "values frozen (OV)")]
    sides = [(column, f"{column[-1]} low", f"{column[-1]} high", 1) for column in qk if column[-2:] in (" +", " -")]
    return "By direction: " + "; ".join(f"{side[0]} loses {of(qk, *side)} points with patterns frozen, {of(ov, *side)} "
                                        "with values" for side in sides) + "."


def by_place(tables):
    rows = [(label, row) for label, row in tables["directions"].items() if " frozen in the " in label]
    return (f"By place, the share that {rows[0][1]['n']:.0f} prompts a side lose: "
            + ", ".join(f"{label} {of(row, 'share', 'share low', 'share high', 2)}" for label, row in rows) + ".")


def teacher_forced(tables):
    rows = {"all": tables["places"]["patterns frozen (QK)"], **directions_of(tables["places"], "QK")}
    places = [("everywhere", "low", "high", 2)]
    places += [(f"in the {place}", f"{place} low", f"{place} high", 2) for place in ("prompt", "answer")]
    said = [f"{label} " + ", ".join(f"{of(row, *place)} {place[0]}" for place in places) for label, row in rows.items()]
    return f"Teacher-forced faithfulness with patterns frozen: {'; '.join(said)}."


def by_token(tables):
    """Of places that say less than a twentieth of what steering does nothing is kept that means anything."""
    said, effect = [], directions_of(tables["tokens"], "effect")
    for label, row in directions_of(tables["tokens"], "QK").items():
        shares = {column: effect[label][column] or 0 for column in row if column != "what is frozen"}
        kept = {column: f" ({row[column]:.2f})" if share >= 0.05 else "" for column, share in shares.items()}
        said.append(f"{label}: " + ", ".join(f"{column} {shares[column]:.2f}{kept[column]}" for column in shares))
    return f"Share of the effect by tokens of the answer (what patterns frozen keep of it): {'; '.join(said)}."


def other_sites(tables):
    said = [f"The map has {len(tables['map'])} sites that steer"]
    for part, name in ("QK", "Patterns"), ("OV", "Values"):
        sites = []
        for site, row in tables["map"].items():
            if (row[f"{part} low"] or 0) > 0:
                points = of(row, f"{part} loss", f"{part} low", f"{part} high", 1)
                place = site.replace(",", ", position")
                sites.append(f"block {place}, {points} points ({row[f'{part} +']:.0f} with +s, "
                             f"{row[f'{part} -']:.0f} with -s)")
        said.append(f"{name} frozen surely lose something at {len(sites)}" + ": " * bool(sites) + "; ".join(sites))
    return ". ".join(said) + "."


def why(report):
    """For each model numbers that may explain why it disagrees with the paper, a sentence of each table."""
    for model in report["models"]:
        tables = {table["name"]: rows_of(model, table["name"]) for table in model["tables"]}
        notes = [note for note in model["notes"] if re.match("reported: |the reported site, |the rule picks ", note)]
        sentences = ["Site: " + "; ".join(notes) + "."] if notes else []
        sentences += [sentence(tables) for sentence, table in
                     ((base_rate, "steering"), (by_direction, "directions"), (by_place, "directions"),
                      (teacher_forced, "places"), (by_token, "tokens"), (other_sites, "map")) if tables.get(table)]
        yield "\n".join([f"{model['name']}:", ""] + [f"- {sentence}" for sentence in sentences])


# ---------------------------------------------------------------- which models were checked

# A row's name, its networks in test_export.py, the title of its real weights, its tokenizers in tokenizer_parity.py,
# its vocabulary of llama.cpp's; or words instead
CHECKED = [
    ("Llama 1, 2", ["llama", "llama with biases", "llama with heads apart from d", "llama with linear rope scaling"],
     "-", ["llama2"], "llama-spm"),
    ("Llama 3, 3.1, 3.2", ["llama with llama3 rope scaling", "llama, as transformers 4 wrote it"], "-", ["llama3"],
     "llama-bpe"),
    ("SmolLM2", "as Llama 1, 2", ["SmolLM2-135M-Instruct"], ["smollm2"], None),
    ("Mistral 7B v0.1 to v0.3", ["mistral", "mistral with a window"], "-", ["mistral", "mistral-v1", "mistral-v3"],
     None),
    ("Gemma 1", ["gemma"], "-", "Gemma 2's", None),
    ("Gemma 2", ["gemma2", "gemma2 with a query scale"], "-", ["gemma2"], None),
    ("Gemma 3 (text)", ["gemma3", "gemma3, as transformers 4 wrote it"], ["Gemma 3 270M"], ["gemma3"], None),
    ("Qwen2, 2.5", ["qwen2"], ["Qwen2.5-Coder-0.5B-Instruct"], ["qwen"], "qwen2"),
    ("Qwen3", ["qwen3"], "-", ["qwen3"], None),
    ("Qwen3.5", "refused", "-", ["qwen3.5"], "qwen35"),
    ("Phi-3", "refused", "-", [], "phi-3"),
]
NOT_RUN = "not run"


def error(x):
    return re.sub(r"e([+-])0", r"e\1", f"{x:.1e}")


def equal(figure):
    alike, of = figure["equal"], figure["of"]
    return f"{of:,}" if alike == of else f"{alike:,} of {of:,}"


def networks(report, names):
    found = [f for f in report.get("networks", {"figures": []})["figures"] if f["network"] in names]
    if {f["network"] for f in found} != set(names):
        return NOT_RUN
    one_way = [f"; {name}: {forms[0]} only" for name in names
               for forms in [[f["form"] for f in found if f["network"] == name]] if len(forms) == 1]
    return error(max(f["largest"] for f in found)) + "".join(one_way)


def real_weights(report, names):
    found = [f for name in names for key, entry in report.items() if key.startswith(f"logits {name}, ")
             for f in entry["figures"]]
    if not found:
        return NOT_RUN
    texts = " and ".join(f"{f['texts']} x {f['length']}" for f in found)
    alike, of = (sum(f[key] for f in found) for key in ("equal", "of"))
    return (f"{error(max(f['largest'] for f in found))} in {texts} tokens of {', '.join(names)}; likeliest token equal at "
            f"{equal({'equal': alike, 'of': of})} positions")


def strings(report, names, vocabulary):
    """Strings equal to each reference, and llama.cpp's own texts."""
    groups, parts = {}, []
    for name in names:
        for f in report.get(f"tokens {name}", {"figures": []})["figures"]:
            if f["kind"] == "tokens":
                form = f"{name} {f['form']}" if len(names) > 1 else f["form"]
                groups.setdefault((equal(f), f["reference"]), []).append(form)
    parts += [f"{count}, {reference} ({', '.join(forms)})" for (count, reference), forms in groups.items()]
    parts += [f"{name} {NOT_RUN}" for name in names if f"tokens {name}" not in report]
    own = [f for f in report.get("tokens llama.cpp", {"figures": []})["figures"]
           if f.get("vocabulary") == f"ggml-vocab-{vocabulary}.gguf"]
    for f in own:
        if f["kind"] == "llama.cpp":
            parts.append(f"{f['equal']} of {f['of']} of llama.cpp's own"
                         + f" (NFC left out: {f['without_nfc']})" * bool(f["without_nfc"]))
        else:
            parts.append(f"{equal(f)} that are not UTF-8, llama.cpp")
    return "; ".join(parts + [f"llama.cpp's own {NOT_RUN}"] * bool(vocabulary and not own))


def conversations(report, names):
    """Of each template: how many are equal, and how many have a system prompt."""
    parts = []
    for name in names:
        if f"tokens {name}" not in report:
            parts.append(f"{name} {NOT_RUN}")
            continue
        for f in report[f"tokens {name}"]["figures"]:
            if f["kind"] == "chats":
                parts.append(f"{f['template']}: {equal(f)}, {f['systems'] or 'none'} with a system prompt")
    return "; ".join(parts) or "-"


def checked_models():
    report = read("checked")
    lines = ["| model | network | real weights | tokens, reference | chats |", "|---|---|---|---|---|"]
    for row, nets, weights, tokenizers, vocabulary in CHECKED:
        own = not isinstance(tokenizers, str)
        cells = [row, nets if isinstance(nets, str) else networks(report, nets),
                 weights if isinstance(weights, str) else real_weights(report, weights),
                 strings(report, tokenizers, vocabulary) if own else tokenizers,
                 conversations(report, tokenizers) if own else tokenizers]
        lines.append("| " + " | ".join(cells) + " |")
    runs = {}
    for name, entry in report.items():
        runs.setdefault((entry["program"], entry["date"]), []).append(name)
    return "\n".join(lines + [""] + [f"By {program} on {date}: {'; '.join(names)}." for (program, date), names
                                     in runs.items()])


# ---------------------------------------------------------------- speed

def spread(x, decimals):
    return f"{x[0]:.{decimals}f} ({x[1]:.{decimals}f} to {x[2]:.{decimals}f})"


def speed_by_model(rows):
    """README's table: a row for each kind of work, a column for each model."""
    models, works = [], {}
    for row in rows:
        model, work = re.fullmatch(r"(\S+?):? (.*)", row["work"]).groups()
        models += [model] * (model not in models)
        kind = re.sub(r" from block \d+", "", work), row["peer"]
        works.setdefault(kind, {})[model] = f"{row['ratio clock'][0]:.2f}"
    lines = ["| " + " | ".join(["times as fast at", "as", *models]) + " |", "|---" * (2 + len(models)) + "|"]
    for (work, peer), ratios in works.items():
        lines.append("| " + " | ".join([work, peer, *(ratios.get(model, "-") for model in models)]) + " |")
    return "\n".join(lines)


def star(row):
    """It was measured anew, by another version than the report's."""
    return " *" if "program" in row else ""


def speed(report, what):
    """How many times as fast as its peer steer.c is, by the clock and by processors' time."""
    rows = [row for row in report["rows"] if row["peer"]]
    if what == ["short"]:
        return speed_by_model(rows)
    peak = f"a peak of {report['peak']:.0f} GFLOP/s, " if report.get("peak") else ""
    rows_of_all = report["rows"] + report["layers"] + report.get("memory", [])
    anew = sorted({row["program"] for row in rows_of_all if "program" in row})
    head = [f"By {report['program']} on {report['date']}", f"{report['processor']}, {report['threads']} threads, {peak}"
            f"{report['rounds']} rounds", *(f"what has a * by {program}" for program in anew),
            *(f"not there: {x}" for x in report["missing"])]
    lines = ["; ".join(head) + ".", "",
             "| work | beside | times as fast (range) | by processors' time (range) | steer.c's own range |",
             "|---|---|---|---|---|"]
    for row in rows:
        mid, low, high = row["steer clock"]
        cells = [row["work"] + star(row), row["peer"], spread(row["ratio clock"], 2),
                 spread(row["ratio processors"], 2),
                 f"{100 * (low / mid - 1):+.0f} to {100 * (high / mid - 1):+.0f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| linear layer, rows of x | steer.c (bf16), % of peak | PyTorch (f32), % of peak |", "|---|---|---|"]
    lines += [f"| {k} to {n}, {rows}{star(row)} | {spread(row['steer'], 0)} | "
              + (spread(row["peer"], 0) if row["peer"] else "-") + " |"
              for row in report["layers"] for k, n, rows in [row["shape"]]]
    if report.get("memory"):
        lines += ["", "| tokens one at a time | weights read, GB/s | memory read alone, GB/s | share, % |",
                  "|---|---|---|---|"]
        lines += [f"| {row['model']}{star(row)} | {spread(row['weights'], 1)} | {spread(row['memory'], 1)} | "
                  f"{spread(row['share'], 0)} |" for row in report["memory"]]
    lines += [""] + [f"- {row['work']}: {row['apart']}." for row in report["rows"] if "apart" in row]
    return "\n".join(lines)


# ---------------------------------------------------------------- the files

REGION = re.compile(r"(<!-- ([\w.-]+): ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text):
    """A file's text with its regions made anew."""
    def region(match):
        head, name, what, end = match.groups()
        what = what.split()
        if name == "findings":
            body = findings(what)
        elif name in ("claims", "times"):
            body = {"claims": claims, "times": times}[name](what)
        elif name.startswith("speed"):
            body = speed(read(name), what)
        elif name == "checked":
            body = checked_models()
        elif what == ["made"]:
            body = made(read(name))
        elif what == ["columns"]:
            body = columns(read(name))
        elif what == ["lost"]:
            body = "\n".join(sentence(read(name)))
        elif what == ["why"]:
            body = "\n\n".join(why(read(name)))
        elif what == ["concluded"]:
            body = fenced(concluded(read(name)))
        else:
            blocks = list(tables(read(name), what))
            if not blocks:
                sys.exit(f"{name}.json has none of the tables {', '.join(what)}")
            body = fenced(blocks)
        return f"{head}{body}\n{end}"
    return REGION.sub(region, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("keep")
    one.add_argument("report")
    one.add_argument("name")
    one.add_argument("--data", nargs="+", default=[str(TOP / "weights")], metavar="PLACE",
                     help="the folder of the prompts (weights), or the files of another behaviour")
    one.add_argument("--origin", default="tools/train.py, see weights/README.md", help="where the weights come from")
    one.add_argument("--prompts", nargs="+", default=["=tools/corpus.py"], metavar="FILE=TEXT",
                     help="where files come from whose names begin with FILE")
    one.add_argument("--besides", help="a sentence on runs of which the report can't tell")
    commands.add_parser("write")
    commands.add_parser("check")
    arguments = parser.parse_args()
    if arguments.command == "keep":
        keep(arguments.report, arguments.name, arguments.data, [one.split("=", 1) for one in arguments.prompts],
             **{"origin of the weights": arguments.origin, "besides": arguments.besides})
        return
    wrong = 0
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        new = written(text)
        if arguments.command == "write":
            path.write_text(new, encoding="utf-8")
        elif new != text:
            print(f"{path.relative_to(TOP)} is not what tools/results.py writes")
            wrong = 1
    sys.exit(wrong)


if __name__ == "__main__":
    main()
