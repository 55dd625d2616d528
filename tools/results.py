"""Writes the tables of README.md and weights/RESULTS.md from the reports in weights/reports.

    python tools/results.py keep REPORT.json NAME [OPTION...]      a run's report joins them
    python tools/results.py write                                  the tables, into both files
    python tools/results.py check                                  are they what would be written?

A report is what `./steer reproduce ... --report` leaves. `keep` drops the answers to harmful prompts, adds
the prompt files' numbers and checksums, where these and the weights come from and, in words, what other runs
did of which the report can't tell, and refuses more than 300 KB. In the two files, what stands between
`<!-- NAME: WHAT... -->` and `<!-- end -->` is written here: WHAT is `made` (how the report was made),
`concluded` (its findings), `lost` (a sentence of what freezing takes), or names of tables, each for every
model. `<!-- findings: NAME... -->` is the table of findings, a column for each model;
`<!-- NAME: columns -->` is one of what tools/paper_sizes.py --report left,
`<!-- speed: all -->` and `<!-- speed: short -->` of what tools/bench.py left in speed.json. Kept are

    report.json box
    qwen.json qwen-0.5b --data DIR --origin TEXT --prompts TEXT [--besides TEXT]
    french.json french --data weights/french.jsonl weights/english.jsonl weights/french.txt --origin TEXT

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


def keep(path, name, data, **texts):
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for model in report["models"]:
        model["answers"] = [a for a in model["answers"] if a["side"] == "harmless"]
    report["prompt files"] = [one for place in data for one in prompt_files(place)]
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
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} hours"


def took(model):
    """What all runs took that filled the model's store, and what of it is not known."""
    spent = model.get("spent")
    if not spent:
        return ""
    runs = "one run" if spent["runs"] == 1 else f"{spent['runs']} runs"
    text = (f" In {runs}: {duration(spent['seconds'])} by the clock, {duration(spent['processor seconds'])} of"
            f" processors, at most {spent['memory'] / 1e9:.2f} GB resident")
    if spent["runs"] == 1 and spent["recalled"]:
        text += f", beside {spent['recalled']} answers and scores of a store that does not tell what they took"
    return text + "."


def made(report):
    """How a report was made: a line for each fact."""
    lines = [f"    {report['command']}", ""]
    seconds = report.get("seconds")
    lines.append(f"Printed by {report['program']} on {report['date'][:10]}"
                 + (f" in {seconds:.0f} seconds." if seconds else "."))
    for model in report["models"]:
        counts = "; ".join(f"{name} {' + '.join(map(str, n.values()))}" for name, n in model["prompts"].items())
        lines.append(f"{model['name']}: fingerprint {model['fingerprint']}; prompts {counts}.{took(model)}")
    lines += [report["besides"]] if "besides" in report else []
    lines += [f"Weights: {report['origin of the weights']}."]
    lines += [f"Prompts: {report['origin of the prompts']}."] if "origin of the prompts" in report else []
    lines += ["", "| prompts | number | SHA-256 |", "|---|---|---|"]
    lines += [f"| {f['file']} | {f['prompts']} | {f['sha256']} |" for f in report["prompt files"]]
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
    return f", **{found['verdict'].replace('holds in part', 'in part')}**" if found else ""


def interval(value, low, high, decimals):
    if value is None or low is None or high is None:  # infinite bounds: nothing is known
        return "-" if value is None else f"{value:.{decimals}f} [too few]"
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def sentence(report):
    for model in report["models"]:
        at_most, *frozen = [lost(row)(model) for row in ("unsteered", "patterns frozen (QK)", "values frozen (OV)",
                                                         "MLP outputs frozen")]
        yield ("Of {} points frozen patterns lose {}, values {}, MLP outputs {}."
               .format(at_most, *frozen))


def lost(row):
    def text(model):
        found = rows_of(model, "freezing").get(row)
        return interval(found["loss"], found["loss low"], found["loss high"], 1) if found else "-"
    return text


def random_vectors(model):
    rows = rows_of(model, "freezing")
    return f"{rows['unsteered']['loss'] - rows['random vectors']['loss']:.1f}" if "random vectors" in rows else "-"


def smallest(model):
    circuit = model.get("circuit")
    return f"{100 * circuit['edges'] / circuit['of']:.1f} %" if circuit else "-"


def number(claim, which, decimals):
    """The least of a finding's numbers with this in their names, with its interval."""
    def text(model):
        found = finding(model, claim)
        numbers = [n for n in found["numbers"] if which in n["name"]] if found else []
        if not numbers:
            return "-"
        least = min(numbers, key=lambda n: n["value"])
        return interval(least["value"], least["low"], least["high"], decimals)
    return text


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
    ("at most, what steering did: points of refusal", lost("unsteered"), None),
    ("three random vectors of the same norm move, on average", random_vectors, None),
    ("patterns frozen lose (8.75)", lost("patterns frozen (QK)"), "Steering hardly acts through"),
    ("values frozen lose (71.75)", lost("values frozen (OV)"), "Steering acts through values"),
    ("direct image removed from values (54.75)", lost("SVV removed"), "The vector's direct image"),
    ("... from MLP inputs (44.50)", lost("MLP direct removed"), None),
    ("MLP outputs frozen", lost("MLP outputs frozen"), None),
    ("edges of DIM's smallest faithful circuit (10.2 and 10.8 %)", smallest, "A tenth of the edges"),
    ("random circuits of twice that size keep (under 0.1)", number("Random circuits", "DIM", 2), "Random circuits"),
    ("a circuit under another vector keeps (most)", number("Different methods' vectors", "under", 2),
     "Different methods' vectors"),
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
            cells.append(text + (verdict(model, claim) if claim and text != "-" else ""))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


def speed(what):
    """How many times as fast as its peer steer.c is, by the clock and by processors' time."""
    if not (REPORTS / "speed.json").exists():
        return "Not measured yet (`make bench`)."
    report = read("speed")
    rows = [row for row in report["rows"] if row["peer"]]
    if what == ["short"]:
        return speed_by_model(rows)
    lines = [f"By {report['program']} on {report['date']}; {report['processor']}, {report['threads']} threads, "
             f"{report['rounds']} rounds" + "".join(f"; not there: {x}" for x in report["missing"]) + ".", "",
             "| work | beside | times as fast (range) | by processors' time (range) | steer.c's own range |",
             "|---|---|---|---|---|"]
    for row in rows:
        mid, low, high = row["steer clock"]
        cells = [row["work"], row["peer"], spread(row["ratio clock"], 2), spread(row["ratio processors"], 2),
                 f"{100 * (low / mid - 1):+.0f} to {100 * (high / mid - 1):+.0f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| linear layer, rows of x | steer.c (bf16), % of peak | PyTorch (f32), % of peak |", "|---|---|---|"]
    lines += [f"| {k} to {n}, {rows} | {spread(row['steer'], 0)} | "
              + (spread(row["peer"], 0) if row["peer"] else "-") + " |"
              for row in report["layers"] for k, n, rows in [row["shape"]]]
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
        elif name == "speed":
            body = speed(what)
        elif what == ["made"]:
            body = made(read(name))
        elif what == ["columns"]:
            body = columns(read(name))
        elif what == ["lost"]:
            body = "\n".join(sentence(read(name)))
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
    one.add_argument("--prompts", help="where the prompts come from")
    one.add_argument("--besides", help="a sentence on runs of which the report can't tell")
    commands.add_parser("write")
    commands.add_parser("check")
    arguments = parser.parse_args()
    if arguments.command == "keep":
        keep(arguments.report, arguments.name, arguments.data,
             **{"origin of the weights": arguments.origin, "origin of the prompts": arguments.prompts,
                "besides": arguments.besides})
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
