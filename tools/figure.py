"""Draws the freezing table of reports as an SVG: the points of refusal that are lost, with intervals.

    python tools/figure.py REPORT.json... --out weights/freezing.svg
    python tools/figure.py REPORT.json... --check weights/freezing.svg     is it what would be written?

A report is what `./steer freeze MODEL --vector FILE --report NAME` or `./steer reproduce ... --report
NAME` writes. Light and dark as the reader's browser prefers. Standard library only.
"""
import argparse
import json
import pathlib
import sys
from html import escape

ROWS = [("patterns frozen (QK)", "attention patterns frozen (QK)"), ("values frozen (OV)", "values frozen (OV)"),
        ("SVV removed", "vector removed from the values"), ("MLP direct removed", "vector removed from MLP inputs"),
        ("MLP outputs frozen", "MLP outputs frozen")]
LABELS, PANEL, BAR, STEP, TOP = 228, 236, 14, 26, 62          # pixels
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .grid { stroke: #d1d9e0 }
  .bar { fill: #4a7fc1 }
  .interval { stroke: #1f2328; stroke-width: 1.5 }
  .paper { fill: none; stroke: #bc4c00; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .bar { fill: #4f8fdc }
    .interval { stroke: #e6edf3 }
    .paper { stroke: #f0883e }
  }
"""


def freezing(path):
    """[(model, {row: {column: value}})] of a report's models that have a freezing table."""
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for model in report["models"]:
        for table in model["tables"]:
            if table["name"] == "freezing":
                columns = [c["name"] for c in table["columns"]]
                yield model["name"], {row[0]: dict(zip(columns, row)) for row in table["rows"]}


def panel(left, name, rows):
    """One model's bars; a diamond where the paper's mean over two models stands."""
    def x(points):
        return f"{left + (PANEL - 36) * points / 100:.1f}"
    most = rows["unsteered"]["at most"]
    bottom = TOP + STEP * len(ROWS)
    yield f'<text class="title" x="{x(0)}" y="32">{escape(name)}</text>'
    for points in 0, 50, 100:
        yield f'<line class="grid" x1="{x(points)}" x2="{x(points)}" y1="{TOP - 8}" y2="{bottom}"/>'
        yield (f'<text class="small" text-anchor="middle" x="{x(points)}" y="{bottom + 15}">'
               f'{points}</text>')
    yield f'<text class="small" x="{x(0)}" y="48">{most:.0f} points can be lost</text>'
    for i, (key, _) in enumerate(ROWS):
        row, y = rows[key], TOP + STEP * i
        loss, low, high = (min(100, max(0, row[k])) for k in ("loss", "loss low", "loss high"))
        middle = y + BAR / 2
        yield (f'<rect class="bar" x="{x(0)}" y="{y}" height="{BAR}" '
               f'width="{float(x(loss)) - float(x(0)):.1f}"><title>{row["loss"]:.1f} points '
               f'[{row["loss low"]:.1f}, {row["loss high"]:.1f}]</title></rect>')
        yield f'<line class="interval" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>'
        paper = row["paper's loss"]
        if paper is not None:
            yield (f'<path class="paper" d="M{x(paper)} {middle - 5}l5 5l-5 5l-5 -5z">'
                   f'<title>paper: {paper:.1f}</title></path>')


def draw(models):
    width, height = LABELS + PANEL * len(models), TOP + STEP * len(ROWS) + 46
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'width="{width}" height="{height}" role="img">',
           "<title>Points of refusal that freezing takes from steering</title>",
           f"<style>{STYLE}</style>",
           '<text class="title" x="8" y="32">what freezing takes</text>',
           '<text class="small" x="8" y="48">from steering, in points of refusal</text>']
    for i, (_, label) in enumerate(ROWS):
        out.append(f'<text x="8" y="{TOP + STEP * i + BAR - 2}">{escape(label)}</text>')
    for i, (name, rows) in enumerate(models):
        out += panel(LABELS + PANEL * i, name, rows)
    out += [f'<text class="small" x="8" y="{height - 8}">bar: test prompts, the mean of both directions; '
            "line: 95 % interval; diamond: the paper's models</text>", "</svg>"]
    return "\n".join(out) + "\n"


def main():
    p = argparse.ArgumentParser(description="The freezing table of reports as an SVG.")
    p.add_argument("reports", nargs="+")
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--check", type=pathlib.Path)
    a = p.parse_args()
    picture = draw([m for path in a.reports for m in freezing(path)])
    if a.out:
        a.out.write_text(picture, encoding="utf-8")
    if a.check and a.check.read_text(encoding="utf-8") != picture:
        sys.exit(f"{a.check} is not what {' '.join(a.reports)} draws; write it anew with --out")


if __name__ == "__main__":
    main()
