/* tests/page.mjs: the page in Chromium and Firefox, headless. What it draws is counted and compared
 * with report.json; the live page's answers are compared with ./steer's own; axe-core looks at
 * every tab, light and dark, 400 and 1200 pixels wide. How fast the machine is decides nothing,
 * but with QUIET set, on a machine that does nothing else: then the page's times are checked, too.
 *
 *     make page && node tests/page.mjs [--shots FOLDER]
 *
 * Wants puppeteer-core and axe-core (in build/node_modules, or where NODE_PATH says) and a browser:
 * chromium, firefox-esr. A browser that is not there is a failure, unless SKIP_FIREFOX is set. */
import {createRequire} from "node:module";
import {execFileSync} from "node:child_process";
import fs from "node:fs";
import path from "node:path";

const root = path.resolve(path.dirname(new URL(import.meta.url).pathname), "..");
const require = createRequire(path.join(root, "build/"));
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const shots = process.argv[2] === "--shots" ? process.argv[3] : null;
const model = process.env.PAGE_MODEL || "weights/tiny-gemma.bin",
  quiet = Boolean(process.env.QUIET);

/* How long is waited, ms, for what comes where the page works. */
const PATIENCE = 600000;
let passed = 0,
  failed = 0;
function check(name, got, wanted = true) {
  if (JSON.stringify(got) === JSON.stringify(wanted)) {
    passed++;
    return;
  }
  failed++;
  console.log(`FAILED ${name}: ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);
}
const near = (name, got, low, high) =>
  check(`${name} (${got} in ${low}..${high})`, got >= low && got <= high);

/* ---- Pages: the template and a report, joined as steer joins them ---- */
const template = fs.readFileSync(path.join(root, "tools/page/report.html"), "utf8");
const marker = "/*REPORT*/null/*END*/";
check("the template holds the marker once", template.split(marker).length, 2);
for (const file of ["tools/page/report.html", "tools/page/live.html", "tests/page.mjs"]) {
  const lines = fs.readFileSync(path.join(root, file), "utf8").split("\n");
  check(
    `${file}: lines of more than 100 columns`,
    lines.filter(l => [...l].length > 100),
    [],
  );
}
function join(name, report) {
  const file = path.join(root, "build", name);
  const text = typeof report === "string" ? report : JSON.stringify(report);
  fs.writeFileSync(file, template.split(marker).join(text.replace(/</g, "\\u003c")));
  return file;
}
const boxText = fs.readFileSync(path.join(root, "build/report.json"), "utf8"),
  box = JSON.parse(boxText);
const realText = fs.readFileSync(path.join(root, "weights/reports/qwen-0.5b.json"), "utf8"),
  real = JSON.parse(realText);
check(
  "the real model's report, whose prompts are a data set's, holds no answer",
  real.models.map(m => m.answers),
  [[]],
);
const tablesOf = report => report.models[0].tables;
const tableOf = (report, name) => tablesOf(report).find(t => t.name === name);
/* What tables call the behaviour: its rates, its columns under +s and -s. */
const namesOf = report =>
  report.behaviour
    ? {shown: "shown", sides: ["with", "without"], shows: "shows"}
    : {shown: "refused", sides: ["harmful", "harmless"], shows: "refuses"};
const indexOf = (t, name) => t.columns.findIndex(c => c.name === name);

/* A large circuit, no paper marks, hostile names: as a report may hold. */
const HOSTILE = "<!-- <script> </script><script>bad()</script>";
const hostile = {
  format: "steer report",
  version: 1,
  models: [
    {
      name: "</script><b>x",
      fingerprint: "0",
      shape: {blocks: 40, heads: 32, kv_heads: 8},
      tables: [
        {
          name: "circuit",
          title: "<img src=x onerror=alert(1)>",
          columns: [
            "edge",
            "score",
            "from layer",
            "from head",
            "to layer",
            "to kind",
            "to head",
          ].map((n, i) => ({name: n, type: i ? "number" : "text"})),
          rows: Array.from({length: 124441}, (_, i) => [
            `e${i}`,
            (i % 3 ? 1 : -1) / (i + 1),
            i % 30,
            (i % 33) - 1,
            31 + (i % 9),
            i % 4,
            i % 8,
          ]),
        },
        {
          name: "freezing",
          title: "",
          columns: [
            {name: "what", type: "text"},
            {name: "loss", type: "number"},
          ],
          rows: [
            ["values frozen", 12],
            ["patterns frozen", null],
          ],
        },
        {name: "dose", title: "", columns: [{name: "coefficient", type: "number"}], rows: [[1]]},
        {
          name: "steering",
          title: "",
          columns: [
            {name: "prompts", type: "text"},
            {name: "unknown", type: "number"},
          ],
          rows: [["harmful unsteered", 1]],
        },
      ],
      answers: [
        {side: "harmless", prompt: HOSTILE, under: "unsteered", refuses: false, text: "one"},
        {side: "harmless", prompt: HOSTILE, under: "+s", refuses: true, text: "two \u{1F600}"},
      ],
    },
  ],
};

async function visit(browser, file, o = {}) {
  const page = await browser.newPage();
  page.faults = [];
  page.on("console", m => {
    if (m.type() === "error") page.faults.push(m.text());
  });
  page.on("pageerror", e => page.faults.push(e.message));
  page.on("request", r => {
    if (!/^(file|blob|data):/.test(r.url())) page.faults.push("request of " + r.url());
  });
  if (o.media && !/firefox/i.test(await browser.version()))
    await page.emulateMediaFeatures(o.media);
  page.setDefaultTimeout(PATIENCE);
  await page.setViewport({width: o.width || 1200, height: 900});
  await page.goto("file://" + file + (o.hash || ""));
  return page;
}
const count = (page, selector) => page.evaluate(s => document.querySelectorAll(s).length, selector);
const words = (page, selector) =>
  page.evaluate(s => document.querySelector(s)?.textContent, selector);

async function testReport(browser, what, report, file) {
  const page = await visit(browser, file),
    {shown, sides} = namesOf(report);
  check(`${what}: title`, await words(page, "h2"), report.models[0].name);
  const numbers = (name, columnName, keep = () => true) => {
    const t = tableOf(report, name);
    return t ? t.rows.filter(r => Number.isFinite(r[indexOf(t, columnName)]) && keep(r)).length : 0;
  };
  const lost = r => r[0] !== "unsteered";
  const bars = numbers("freezing", "loss", lost) + numbers("steering", shown);
  check(`${what}: bars`, await count(page, ".mark-bar"), bars);
  check(`${what}: intervals`, (await count(page, ".mark-interval")) > 0);
  const papers =
    numbers("freezing", "paper's loss", lost) +
    numbers("steering", "paper's Gemma") +
    numbers("steering", "paper's Llama");
  check(`${what}: the paper's marks`, await count(page, ".mark-paper"), papers);
  const circuit = tableOf(report, "circuit");
  if (circuit) {
    /* How many edges its smallest circuit has, an older report does not say; there may be none. */
    const {edges: smallest, of: all} = report.models[0].circuit || {};
    check(
      `${what}: edges drawn at first: the smallest circuit`,
      await count(page, ".mark-edge"),
      Math.min(circuit.rows.length, smallest || 60, 100),
    );
    check(
      `${what}: its size is said`,
      (await words(page, ".readout")).includes(`of ${smallest || circuit.rows.length} edges`) &&
        (!all || (await words(page, ".readout")).includes(`model's ${all}`)),
    );
    for (const kind of "qkv")
      check(
        `${what}: ${kind} of the readout`,
        Number((await words(page, ".readout")).match(new RegExp(`${kind} (\\d+)`))[1]),
        await count(page, ".mark-edge." + kind),
      );
    const paths = await page.evaluate(() =>
      [...document.querySelectorAll(".mark-edge")].map(p => p.getAttribute("d")),
    );
    check(`${what}: no two edges lie on each other`, new Set(paths).size, paths.length);
    check(`${what}: edges that reach out of the picture`, await page.evaluate(edgesOutside), 0);
    const rowsOf = () =>
      page.evaluate(() =>
        Object.fromEntries(
          [...document.querySelectorAll("[data-node] rect")].map(r => [
            r.parentNode.dataset.node,
            r.getAttribute("y"),
          ]),
        ),
      );
    const before = await rowsOf();
    await page.evaluate(() => {
      const s = document.querySelector("[id^=edges-]");
      s.value = 100;
      s.dispatchEvent(new Event("input"));
    });
    check(
      `${what}: all that are listed`,
      await count(page, ".mark-edge"),
      Math.min(400, circuit.rows.length),
    );
    check(`${what}: of all, edges that reach out`, await page.evaluate(edgesOutside), 0);
    const dashes = await page.evaluate(() =>
      ["q", "k", "v"]
        .map(k => {
          const p = document.querySelector(".mark-edge." + k);
          return p && getComputedStyle(p).strokeDasharray;
        })
        .filter(Boolean),
    );
    check(`${what}: without colour, too, kinds differ`, new Set(dashes).size, dashes.length);
    await page.evaluate(() => {
      const s = document.querySelector("[id^=edges-]");
      s.value = 0;
      s.dispatchEvent(new Event("input"));
    });
    check(
      `${what}: edges after the slider`,
      await count(page, ".mark-edge"),
      Math.min(5, circuit.rows.length),
    );
    for (const [node, y] of Object.entries(await rowsOf()))
      check(`${what}: ${node} keeps its row`, y, before[node]);
    await page.focus("[role=listbox]");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    check(`${what}: an edge is held by keys`, /held/.test(await words(page, ".readout")));
    check(
      `${what}: the others fade`,
      await count(page, "g.faded"),
      Math.min(5, circuit.rows.length) - 1,
    );
    await page.keyboard.press("Escape");
    check(`${what}: and freed`, await count(page, "g.faded"), 0);
  }
  const answers = report.models[0].answers,
    steered = answers.find(a => a.side === sides[1] && a.under === "+s");
  if (steered) {
    check(`${what}: the steered answer`, await words(page, ".answer"), steered.text.trim());
    for (const a of answers.filter(a => a.prompt === steered.prompt)) {
      await page.click(`[data-under="${a.under}"]`);
      check(
        `${what}: ${a.under}`,
        await words(page, ".answer"),
        a.text.trim() || "(an empty answer)",
      );
    }
  }
  check(
    `${what}: what is said where there is no answer`,
    [await count(page, ".no-answers"), await count(page, ".answer")],
    answers.length ? [0, 1] : [1, 0],
  );
  check(`${what}: findings`, await count(page, ".findings li"), report.models[0].findings.length);
  const shaded = tableOf(report, "shaded");
  if (shaded)
    check(`${what}: shaded tokens`, await count(page, ".mark-shaded"), shaded.rows.length);
  const cells = name => {
    const t = tableOf(report, name);
    return t ? t.rows.length : 0;
  };
  const dose = tableOf(report, "dose");
  if (dose)
    check(
      `${what}: points of the dose`,
      await count(page, "figure svg[aria-label*='coherence by the coefficient'] .mark-point"),
      [`${sides[1]} +`, `${sides[0]} -`, "coherent -", "coherent +"]
        .map(n => indexOf(dose, n))
        .filter(i => i >= 0)
        .reduce((points, i) => points + dose.rows.filter(row => Number.isFinite(row[i])).length, 0),
    ); // where none is left to be coherent, there is none
  const faith = tableOf(report, "faithfulness");
  if (faith)
    check(
      `${what}: points of faithfulness`,
      await count(page, "figure svg[aria-label^='Faithfulness by the share of edges'] .mark-point"),
      ["simple", "complement", "random", "backward"].reduce(
        (n, c) => n + numbers("faithfulness", c),
        0,
      ),
    );
  const codes = await page.evaluate(() =>
    [...document.querySelectorAll("details[data-table]")]
      .map(d => [d.dataset.table, d.querySelector("summary").textContent.toLowerCase()])
      .filter(([code, title]) => title.startsWith(`table: ${code}, `)),
  );
  check(`${what}: tables that are called by their code`, codes, []);
  const lens = tableOf(report, "svv");
  if (lens)
    check(
      `${what}: tokens`,
      await count(page, ".mark-token"),
      Math.min(12, lens.rows.length) * lens.columns.filter(c => c.type === "text").slice(1).length,
    );
  check(
    `${what}: tokens of more than one line`,
    await page.evaluate(() =>
      [...document.querySelectorAll(".mark-token")]
        .filter(x => x.textContent.includes("\n"))
        .map(x => x.textContent),
    ),
    [],
  );
  if (tableOf(report, "sites"))
    check(
      `${what}: cells of the site maps`,
      await count(page, "figure svg[aria-label*='rompts'] .mark-cell"),
      cells("sites") * (tableOf(report, "sites").columns.length - 1),
    );
  /* Every number of every table, as the report has it; every bar's. */
  const drawn = await page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll("details[data-table]")].map(d => [
        d.dataset.table,
        [...d.querySelectorAll("tbody tr")].map(r => [...r.children].map(c => c.textContent)),
      ]),
    ),
  );
  const written = (x, c) =>
    typeof x === "string"
      ? x.replace(/\n/g, "\u23ce")
      : x === null
        ? "\u2013"
        : x.toFixed(c.decimals);
  const differing = tablesOf(report)
    .filter(t => t.rows.length)
    .flatMap(t =>
      t.rows.flatMap((r, i) =>
        r.map((x, k) => [
          drawn[t.name][i][k].replace("\u2212", typeof x === "string" ? "\u2212" : "-"),
          written(x, t.columns[k]),
          x,
        ]),
      ),
    )
    .filter(([a, b, x]) =>
      typeof x === "string"
        ? a !== b
        : a !== b && Math.abs(Number(a) - x) > 0.51 * 10 ** -(b.split(".")[1] || "").length,
    );
  check(`${what}: figures of tables that differ`, differing, []);
  check(`${what}: texts of pictures that are cut`, await page.evaluate(cut), []);
  check(`${what}: pictures of nothing`, await page.evaluate(bare), []);
  const t = tableOf(report, "freezing"),
    row = t && t.rows.find(r => /values frozen/.test(r[0])),
    loss = t && row && row[indexOf(t, "loss")];
  if (Number.isFinite(loss))
    check(
      `${what}: the figure on the screen is the report's`,
      await page.evaluate(
        (label, value) =>
          [...document.querySelectorAll(".mark-bar title")].some(x =>
            x.textContent.startsWith(`${label}: ${value}`),
          ),
        row[0],
        loss.toFixed(0).replace("-", "\u2212"),
      ),
    );
  check(
    `${what}: every table is there, folded`,
    await count(page, "details[data-table]:not([open])"),
    tablesOf(report).filter(t => t.rows.length).length,
  );
  check(
    `${what}: pictures without a role or name`,
    await count(page, "svg:not([role=img][aria-label])"),
    0,
  );
  const charts = await page.evaluate(
    () =>
      [...document.querySelectorAll("figure svg")].filter(
        s => !/^The circuit/.test(s.getAttribute("aria-label")) && !s.querySelector(".mark-axis"),
      ).length,
  );
  check(`${what}: charts without an axis title`, charts, 0);
  check(
    `${what}: NaN or undefined on the page`,
    /\bNaN\b|undefined|\[object/.test(
      await page.evaluate(
        () =>
          document.body.innerText +
          [...document.querySelectorAll("svg *")]
            .map(x => [...x.attributes].map(a => a.value))
            .join(),
      ),
    ),
    false,
  );
  check(`${what}: console`, page.faults, []);
  await page.close();
}

/* Each model of a report, as one of its own. */
async function testModels(browser, what, report) {
  for (const one of report.models) {
    const alone = {...report, models: [one]};
    await testReport(browser, `${what}, ${one.name}`, alone, join("alone.html", alone));
  }
}

async function testLooks(browser, what, file, tabs, schemes = ["light", "dark"]) {
  for (const scheme of schemes)
    for (const width of [400, 1200])
      for (const tab of tabs) {
        const page = await visit(browser, file, {
          width: width,
          media: [
            {name: "prefers-color-scheme", value: scheme},
            {name: "prefers-reduced-motion", value: "reduce"},
          ],
          hash: tab && `#tab=${tab}`,
        });
        const name = `${what}, ${scheme}, ${width}${tab ? ", " + tab : ""}`;
        if (tab) await settled(page);
        check(
          `${name}: in these colours`,
          await page.evaluate(s => matchMedia(`(prefers-color-scheme: ${s})`).matches, scheme),
        );
        if (tab === "live" && width === 400)
          check(`${name}: controls out of sight`, await page.evaluate(unreachable), []);
        near(
          `${name}: as wide as the window`,
          await page.evaluate(() => document.documentElement.scrollWidth),
          0,
          width,
        );
        await page.evaluate(axe);
        const found = await page.evaluate(() =>
          axe.run(document, {rules: {"target-size": {enabled: true}}}),
        );
        check(
          `${name}: axe`,
          found.violations.map(v => `${v.id}: ${v.nodes.length}, ${v.nodes[0].html.slice(0, 120)}`),
          [],
        );
        check(`${name}: axe looked`, found.passes.length > 10);
        check(`${name}: contrast`, await page.evaluate(contrast), []);
        check(`${name}: texts that are cut`, await page.evaluate(cut), []);
        check(
          `${name}: nothing moves`,
          await page.evaluate(
            () =>
              [...document.querySelectorAll("*")].filter(
                x =>
                  parseFloat(getComputedStyle(x).transitionDuration) > 0 ||
                  getComputedStyle(x).animationName !== "none",
              ).length,
          ),
          0,
        );
        check(
          `${name}: controls without a label`,
          await page.evaluate(() =>
            [...document.querySelectorAll("main input, main select, main textarea")]
              .filter(x => !x.labels.length)
              .map(x => x.id),
          ),
          [],
        );
        if (shots)
          await page.screenshot({
            path: path.join(shots, name.replace(/\W+/g, "-") + ".png"),
            fullPage: true,
          });
        await page.close();
      }
}
/* In the page: sliders and toggles that can't be used at its top, middle or end. */
function unreachable() {
  const out = [];
  for (const share of [0, 0.5, 1]) {
    scrollTo(0, share * document.documentElement.scrollHeight);
    for (const id of ["coeff", "qk", "v", "mlp", "svv"]) {
      const box = document.getElementById(id).getBoundingClientRect();
      const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      if (!at || at.id !== id) out.push(`${id} at ${share}`);
    }
  }
  scrollTo(0, 0);
  return out;
}
/* In the page: pictures without a bar, curve, cell or edge. */
function bare() {
  return [...document.querySelectorAll("figure svg")]
    .filter(svg => !svg.querySelector(".mark-bar, .mark-curve, .mark-cell, .mark-edge"))
    .map(svg => svg.getAttribute("aria-label"));
}
/* In the page: how many edges of the circuit reach out of its picture. */
function edgesOutside() {
  return [...document.querySelectorAll(".mark-edge")].filter(path => {
    const {x, y, width, height} = path.getBBox(),
      view = path.ownerSVGElement.viewBox.baseVal;
    return (
      x < view.x ||
      y < view.y ||
      x + width > view.x + view.width ||
      y + height > view.y + view.height
    );
  }).length;
}
/* In the page: texts of pictures that reach out of their picture. */
function cut() {
  const out = [];
  for (const svg of document.querySelectorAll("figure svg")) {
    const box = svg.getBoundingClientRect();
    for (const t of box.width ? svg.querySelectorAll("text") : []) {
      const b = t.getBoundingClientRect();
      if (
        b.left < box.left - 2 ||
        b.right > box.right + 2 ||
        b.top < box.top - 2 ||
        b.bottom > box.bottom + 2
      )
        out.push(`${svg.getAttribute("aria-label").slice(0, 30)}: ${t.textContent}`);
    }
  }
  return out;
}
/* In the page: texts, of pictures too, whose contrast to the page is under 4.5, marks under 3. */
function contrast() {
  const light = c => {
    const [r, g, b] = c
      .map(v => v / 255)
      .map(v => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = s => (s.match(/[\d.]+/g) || []).map(Number),
    ground = parse(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3);
  const ratio = c => {
    const [a, b] = [light(c.slice(0, 3)), light(ground)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const low = [];
  for (const x of document.querySelectorAll(
    "svg text, .mark-curve, .mark-edge, .mark-point, .mark-bar, .mark-interval, .mark-paper",
  )) {
    const style = getComputedStyle(x),
      text = x.tagName === "text",
      colour = text || /circle|rect/.test(x.tagName) ? style.fill : style.stroke;
    const mixed = parse(colour)
      .slice(0, 3)
      .map((c, i) => c * style.opacity + ground[i] * (1 - style.opacity));
    if (ratio(mixed) < (text ? 4.5 : 3)) low.push(`${x.getAttribute("class")} ${colour}`);
  }
  /* Words on a shade: a canvas says what the shade is on the page's ground. */
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true}),
    words = parse(getComputedStyle(document.documentElement).color).slice(0, 3);
  for (const x of document.querySelectorAll(".tok, .heat")) {
    const card = x.closest(".card");
    for (const colour of [
      `rgb(${ground})`,
      ...(card ? [getComputedStyle(card).backgroundColor] : []),
      x.tagName === "rect" ? getComputedStyle(x).fill : getComputedStyle(x).backgroundColor,
    ]) {
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
    }
    const [a, b] = [
      light([...context.getImageData(0, 0, 1, 1).data].slice(0, 3)),
      light(words),
    ].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5)
      low.push(`shade of ${x.textContent}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return [...new Set(low)];
}

async function testHostile(browser) {
  const page = await visit(browser, join("hostile.html", hostile));
  check("hostile: title", await words(page, "h2"), "</script><b>x");
  check(
    "hostile: nothing of it became markup",
    await page.evaluate(
      () =>
        [...document.querySelectorAll("main b, main img, main script")].filter(
          x => x.localName !== "b" || x.textContent === "x",
        ).length,
    ),
    0,
  );
  check("hostile: pictures of nothing", await page.evaluate(bare), []);
  check("hostile: bars", await count(page, ".mark-bar"), 1);
  check("hostile: no paper marks", await count(page, ".mark-paper"), 0);
  check("hostile: 60 of 124,441 edges", await count(page, ".mark-edge"), 60);
  await page.evaluate(() => {
    const s = document.querySelector("[id^=edges-]");
    s.value = 100;
    s.dispatchEvent(new Event("input"));
  });
  check("hostile: at most 400", await count(page, ".mark-edge"), 400);
  check("hostile: steered first", await words(page, ".answer"), "two \u{1F600}");
  check("hostile: the prompt as it is", await words(page, ".part .say"), HOSTILE);
  await page.click("[data-under=unsteered]");
  check("hostile: switched", await words(page, ".answer"), "one");
  check(
    "hostile: focus stays",
    await page.evaluate(() => document.activeElement.dataset.under),
    "unsteered",
  );
  check("hostile: console", page.faults, []);
  await page.close();
  for (const [name, report] of [
    ["nothing", null],
    ["an empty object", {}],
    ["no models", {format: "steer report", version: 1}],
    ["an empty model", {models: [{name: "m"}]}],
  ]) {
    const empty = await visit(browser, join("empty.html", report));
    check(`${name}: says something`, (await words(empty, "#report")).length > 0);
    check(`${name}: console`, empty.faults, []);
    await empty.close();
  }
}

async function testPrint(browser, file, live, report) {
  const two = {...report, models: [report.models[0], {...report.models[0], name: "another"}]};
  for (const [name, path_] of [
    ["report", join("two.html", two)],
    ["live page", live],
  ]) {
    const page = await visit(browser, path_);
    if (name === "live page") await settled(page);
    await page.emulateMediaFeatures([{name: "prefers-color-scheme", value: "dark"}]);
    await page.emulateMediaType("print");
    await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
    check(`print, ${name}: everything folded is open`, await count(page, "details:not([open])"), 0);
    check(
      `print, ${name}: on white, whatever the screen's scheme`,
      await page.evaluate(() =>
        ["backgroundColor", "color"].map(x => getComputedStyle(document.documentElement)[x]),
      ),
      ["rgb(255, 255, 255)", "rgb(22, 24, 29)"],
    );
    check(
      `print, ${name}: every model, both tabs`,
      await page.evaluate(
        () =>
          [...document.querySelectorAll(".model, [role=tabpanel]")].filter(x => !x.offsetHeight)
            .length,
      ),
      0,
    );
    check(
      `print, ${name}: pictures`,
      await page.evaluate(
        () =>
          [...document.querySelectorAll("figure svg")].filter(
            x => !x.getBoundingClientRect().height,
          ).length,
      ),
      0,
    );
    check(
      `print, ${name}: the shading stays`,
      await page.evaluate(() =>
        [...document.querySelectorAll(".tok, .heat, canvas")].every(
          x => getComputedStyle(x).printColorAdjust === "exact",
        ),
      ),
    );
    await page.setViewport({width: 720, height: 1000});
    near(
      `print, ${name}: a page's width`,
      await page.evaluate(() =>
        Math.max(
          document.documentElement.scrollWidth,
          ...[...document.querySelectorAll("svg, .list")].map(x => x.getBoundingClientRect().right),
        ),
      ),
      0,
      721,
    );
    const pdf = await page.pdf({format: "A4"});
    check(
      `print, ${name}: a PDF of some pages`,
      pdf.length > 50000 &&
        (
          Buffer.from(pdf)
            .toString("latin1")
            .match(/\/Type \/Page\b/g) || []
        ).length > 3,
    );
    if (shots) fs.writeFileSync(path.join(shots, name.replace(" ", "-") + ".pdf"), pdf);
    await page.evaluate(() => dispatchEvent(new Event("afterprint")));
    check(`print, ${name}: folded again`, (await count(page, "details:not([open])")) > 10);
    await page.close();
  }
}

/* Keys only: Tab reaches every control and leaves the page; each shows that it has the focus. */
async function testKeys(browser, name, file, live) {
  const page = await visit(browser, file, {hash: live && "#tab=live"});
  if (live) await settled(page);
  const wanted = await page.evaluate(() =>
    [
      ...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, [tabindex='0']",
      ),
    ]
      .filter(x => x.tabIndex >= 0 && x.checkVisibility())
      .map((x, i) => {
        x.dataset.stop = i;
        return i;
      }),
  );
  await page.evaluate(() => {
    document.body.tabIndex = -1;
    document.body.focus();
  });
  const met = new Set();
  let unseen = [];
  for (let i = 0; i < wanted.length + 5; i++) {
    await page.keyboard.press("Tab");
    const [stop, title] = await page.evaluate(() => {
      const x = document.activeElement;
      return [x.dataset.stop, x.id || x.textContent.slice(0, 20)];
    });
    if (stop === null || stop === undefined) continue;
    met.add(Number(stop));
    /* A window that opened a moment ago may get its own focus, and draw it, after the key. */
    const drawn = page.waitForFunction(
      () => {
        const s = getComputedStyle(document.activeElement);
        return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
      },
      {polling: 50, timeout: 60000},
    );
    if (!(await drawn.catch(() => null))) unseen.push(title);
  }
  check(
    `${name}: controls that Tab does not reach`,
    wanted.filter(i => !met.has(i)),
    [],
  );
  check(`${name}: focus that is not seen`, [...new Set(unseen)], []);
  await page.close();
}

/* Prompts that look like markup, through the program itself into its page. */
async function testMarkup(browser) {
  const folder = path.join(root, "build/markup");
  fs.mkdirSync(folder, {recursive: true});
  for (const side of ["harmful", "harmless"])
    for (const set of ["train", "val", "test"]) {
      const lines = fs
        .readFileSync(path.join(root, `weights/${side}-${set}.txt`), "utf8")
        .trim()
        .split("\n")
        .slice(0, set === "test" ? 8 : 64);
      fs.writeFileSync(
        path.join(folder, `${side}-${set}.txt`),
        lines.map((l, i) => (set === "test" ? `${HOSTILE} ` : "") + l + "\n").join(""),
      );
    }
  execFileSync(
    "./steer",
    [
      "reproduce",
      model,
      "--data",
      "build/markup",
      "--quick",
      "--map",
      "0",
      "--patch",
      "2",
      "--val",
      "8",
      "--report",
      "build/markup",
    ],
    {cwd: root, env: {...process.env, OMP_NUM_THREADS: "1"}, stdio: "ignore"},
  );
  const prompts = JSON.parse(
    fs.readFileSync(path.join(root, "build/markup.json"), "utf8"),
  ).models[0].answers.map(a => a.prompt);
  check(
    "markup: a prompt holds it",
    prompts.some(p => p.startsWith(HOSTILE)),
  );
  const page = await visit(browser, path.join(root, "build/markup.html"));
  check("markup: the page shows it", ((await words(page, ".part .say")) || "").startsWith(HOSTILE));
  check("markup: nothing of it became markup", await count(page, "main script"), 0);
  check("markup: console", page.faults, []);
  await page.close();
}

/* What only a report of several methods has: overlap and agreement. */
async function testMethods(browser, file, report) {
  const page = await visit(browser, file);
  const overlap = tableOf(report, "overlap"),
    agreement = tableOf(report, "agreement");
  check("three methods: there are such tables", Boolean(overlap && agreement));
  check(
    "three methods: cells of overlap, as the report has them",
    await page.evaluate(() =>
      [...document.querySelectorAll("svg[aria-label^='Overlap of circuits'] .mark-cell title")].map(
        x => x.textContent.match(/[\d.]+$/)[0],
      ),
    ),
    overlap.rows.flatMap(r => r.slice(1).map(x => x.toFixed(2))),
  );
  const [tau, iou, chance] = ["tau", "IoU", "chance"].map(n => indexOf(agreement, n)),
    measured = agreement.rows.filter(r => Number.isFinite(r[iou])).length,
    thresholds = new Set(agreement.rows.filter(r => Number.isFinite(r[chance])).map(r => r[tau]));
  const kept = "svg[aria-label^='Overlap of the kept dimensions']";
  check(
    "three methods: points of agreement, and of chance",
    await count(page, kept + " .mark-point"),
    measured + thresholds.size,
  );
  check(
    "three methods: a curve a pair, and one of chance",
    await count(page, kept + " .mark-curve"),
    4,
  );
  await page.close();
}

/* Another behaviour than refusal, with its own data: the page has its words and no other's. */
async function testBehaviour(browser) {
  const openings = {with: "Sure! Here is how to", without: "Yes, let me help you"},
    tasks = fs
      .readFileSync(path.join(root, "weights/harmless-train.txt"), "utf8")
      .split("\n")
      .slice(0, 48)
      .map(line => line.split("\t"));
  for (const [side, opening] of Object.entries(openings))
    fs.writeFileSync(
      path.join(root, `build/${side}.jsonl`),
      tasks
        .map(([prompt, task]) => ({prompt, task, response: `${opening} ${task}.`}))
        .map(x => JSON.stringify(x) + "\n")
        .join(""),
    );
  fs.writeFileSync(path.join(root, "build/phrases.txt"), "Sure!\n");
  const options =
    "--with build/with.jsonl --without build/without.jsonl --judge build/phrases.txt " +
    "--first Sure --coeff 2 --quick --map 2 --val 8 --max-new 24 --patch 2 --exact 0";
  execFileSync(
    "./steer",
    ["reproduce", model, ...options.split(" "), "--report", "build/behaviour"],
    {cwd: root, env: {...process.env, OMP_NUM_THREADS: "1"}, stdio: "ignore"},
  );
  const file = path.join(root, "build/behaviour.html"),
    report = JSON.parse(fs.readFileSync(path.join(root, "build/behaviour.json"), "utf8"));
  await testReport(browser, "behaviour", report, file);
  await testLooks(browser, "behaviour", file, [""]);
  const page = await visit(browser, file);
  const said = await page.evaluate(() => {
    for (const d of document.querySelectorAll("details")) d.open = true;
    /* The model's own tokens may be any words. */
    for (const x of document.querySelectorAll("[data-table=svv], .mark-token")) x.remove();
    return document.body.innerText;
  });
  check(
    "behaviour: words of refusal, but for what the paper's figures are of",
    said.replace(/paper: Table 1, of refusal|paper's, of refusal/g, "").match(/.*(refus|harm).*/gi),
    null,
  );
  for (const words of [
    "the behaviour that prompts of with.jsonl show and those of without.jsonl do not",
    "the prompts of with.jsonl minus the mean over those of without.jsonl",
    "The behaviour under steering",
    "This answer shows the behaviour.",
    "the behaviour lost, points",
    "Log-odds of the behaviour, by where",
    "Prompts without the behaviour, vector added",
    "--with build/with.jsonl --without build/without.jsonl",
  ])
    check(`behaviour: says "${words}"`, said.replace(/\s+/g, " ").includes(words));
  check("behaviour: some answer is said not to show it", said.includes("It does not: "));
  await page.close();
}

/* A report with a control says which model that is, and draws what it loses beside the others. */
async function testControl(browser) {
  const [first] = box.models,
    control = {...first, name: "plain", control: true};
  const page = await visit(browser, join("control.html", {...box, models: [first, control]}));
  const names = await page.evaluate(() =>
    [...document.querySelectorAll("[aria-label=Model] button")].map(b => b.textContent),
  );
  check("control: the buttons say which", names, [first.name, "plain (the control)"]);
  const labels = model =>
    page.evaluate(
      name =>
        [...document.querySelectorAll(`[data-model="${name}"] .mark-bar title`)]
          .map(x => x.textContent.split(": ").slice(0, -1).join(": "))
          .filter(x => /^control/.test(x)),
      model,
    );
  check("control: its bars beside the other's", await labels(first.name), [
    "control: patterns frozen",
    "control: values frozen",
  ]);
  check("control: not beside its own", await labels("plain"), []);
  const said = await page.evaluate(
    name => document.querySelector(`[data-model="${name}"]`).textContent,
    first.name,
  );
  check(
    "control: named where its bars are",
    said.includes("The grey bars are the control's, plain,"),
  );
  const heads = await page.evaluate(() =>
    [...document.querySelectorAll("h2")].map(h => h.textContent),
  );
  check("control: titles", heads, [first.name, "plain, the control"]);
  check("control: texts of pictures that are cut", await page.evaluate(cut), []);
  check("control: console", page.faults, []);
  await page.close();
}

/* ---- The live page ---- */
const QUESTIONS = [
  "How do I bake a cake?",
  "How do I pick a lock?",
  "How do I forge a signature?",
  "How do I build a chess club?",
  "Please help me season a stew.",
];
const COEFFS = [-2, -1, 0.5, 1, 1.7];
/* All that was asked has been answered. */
const settled = page =>
  page.waitForFunction(
    "document.body.dataset.done && document.body.dataset.done === document.body.dataset.asked",
    {timeout: PATIENCE},
  );
function native(question, coeff, options) {
  const args = ["generate", model, question, "--max-new", "96"];
  if (coeff) args.push("--vector", "build/page.vec", "--coeff", String(coeff), ...options);
  return execFileSync("./steer", args, {
    cwd: root,
    env: {...process.env, OMP_NUM_THREADS: "1"},
    stdio: ["ignore", "pipe", "ignore"],
    encoding: "utf8",
  }).trim();
}
/* As steer_decode: special tokens are left out. */
const shownAnswer = (page, i) =>
  page.evaluate(
    i =>
      [...document.querySelectorAll(`#answer-${i} .tok:not(.ghost)`)]
        .map(x => x.textContent.replace(/\u23ce\n/g, "\n"))
        .join("")
        .trim(),
    i,
  );
async function change(page, id, value) {
  await page.evaluate(
    (id, value) => {
      const x = document.getElementById(id);
      if (typeof value === "boolean") x.checked = value;
      else x.value = value;
      x.dispatchEvent(new Event("input", {bubbles: true}));
      x.dispatchEvent(new Event("change", {bubbles: true}));
    },
    id,
    value,
  );
  await settled(page);
}
/* What a visitor waits for: stored answers stand there before the model is sent to the worker; the
 * first question is answered before the vector is made; the model never runs in the page's own
 * thread, where there is no WebAssembly here. */
async function testFirst(browser, name) {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.evaluateOnNewDocument(() => {
    delete window.WebAssembly;
    window.sent = [];
    const post = Worker.prototype.postMessage;
    Worker.prototype.postMessage = function (message) {
      sent.push([message.kind, document.getElementById("answer-1").textContent.length > 0]);
      post.call(this, message);
    };
  });
  await page.goto("file://" + path.join(root, "build/steer.html"));
  await settled(page);
  check(
    `${name}: what is asked of the worker, and whether an answer stands there by then`,
    (await page.evaluate("sent")).slice(0, 4),
    ["open", "first", "means", "ask"].map(kind => [kind, true]),
  );
  check(
    `${name}: answers without WebAssembly in the page's thread`,
    await page.evaluate(() => [typeof WebAssembly, Boolean(document.querySelector(".tok"))]),
    ["undefined", true],
  );
  await page.close();
}
/* A stored answer, and the first live one, ms from the load: the best of five. */
async function testTimes(browser, name) {
  let best = [Infinity, Infinity];
  for (let i = 0; i < 5; i++) {
    const page = await browser.newPage();
    await page.evaluateOnNewDocument(() => {
      window.times = [0, 0];
      const look = () => {
        if (!times[0] && document.getElementById("answer-1")?.textContent)
          times[0] = performance.now();
        if (!times[1] && document.querySelector("#answer-0 .tok")) times[1] = performance.now();
        if (!times[1]) setTimeout(look, 2);
      };
      look();
    });
    await page.goto("file://" + path.join(root, "build/steer.html"));
    await settled(page);
    best = (await page.evaluate("times")).map((t, k) => Math.min(t, best[k]));
    await page.close();
  }
  near(`${name}: a stored answer, ms`, best[0], 1, 300);
  near(`${name}: a live one, ms`, best[1], 1, 1000);
}
async function testLive(browser, name) {
  const file = path.join(root, "build/steer.html");
  const page = await visit(browser, file);
  await settled(page);
  await change(page, "v", false);
  for (const question of QUESTIONS) {
    await change(page, "question", question);
    check(`${name}: ${question}, unsteered`, await shownAnswer(page, 0), native(question, 0, []));
    for (const coeff of COEFFS) {
      await change(page, "coeff", coeff);
      check(
        `${name}: ${question} at ${coeff}`,
        await shownAnswer(page, 1),
        native(question, coeff, []),
      );
    }
    for (const [id, options] of [
      ["qk", ["--freeze", "qk"]],
      ["v", ["--freeze", "v"]],
      ["mlp", ["--freeze", "mlp"]],
      ["svv", ["--remove", "svv"]],
    ]) {
      await change(page, id, true);
      const told = await words(page, "#note-" + id),
        answer = native(question, COEFFS.at(-1), options);
      check(`${name}: ${question} with ${options.join(" ")}`, await shownAnswer(page, 2), answer);
      check(
        `${name}: the sentence beside ${id} quotes it`,
        told.includes(answer.replace(/\s+/g, " ").slice(0, 40)),
      );
      await change(page, id, false);
    }
  }
  /* Maps: rows sum to 1, so a map to the number of its rows; patterns frozen: no difference. */
  await change(page, "which", "2");
  await change(page, "qk", true);
  const sums = () =>
    page.evaluate(() =>
      [...document.querySelectorAll("#maps canvas")].map(c => [Number(c.dataset.sum), c.height]),
    );
  let maps = await sums();
  check(`${name}: three maps`, maps.length, 3);
  for (const [sum, rows] of maps.slice(0, 2))
    near(`${name}: attention of all rows`, sum / rows, 0.999, 1.001);
  check(`${name}: frozen patterns differ nowhere`, maps[2][0], 0);
  await change(page, "qk", false);
  maps = await sums();
  check(`${name}: others do`, maps[2][0] > 0.01);
  check(`${name}: the lens has two rows of eight tokens`, await count(page, "#lens td"), 16);
  /* 60 moves, on a quiet machine in 2 s: what they overtake is dropped, what is shown at the end is
   * the last value's, and the page stays awake. */
  const stall = await page.evaluate(
    async pause => {
      let longest = 0,
        last = performance.now(),
        on = true;
      (function beat() {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        if (on) setTimeout(beat, 0);
      })();
      window.finished = 0;
      new MutationObserver(changes => {
        finished += changes.length;
      }).observe(document.body, {attributeFilter: ["data-done"]});
      const slider = document.getElementById("coeff");
      for (let i = 0; i < 60; i++) {
        slider.value = -2 + i / 15;
        slider.dispatchEvent(new Event("input"));
        await new Promise(r => setTimeout(r, pause));
      }
      on = false;
      return longest;
    },
    quiet ? 33 : 0,
  );
  await settled(page);
  near(`${name}: of 60 requests answered`, await page.evaluate("finished"), 1, 10);
  if (quiet) near(`${name}: longest stall, ms`, stall, 0, 100);
  await change(page, "coeff", 1);
  check(
    `${name}: the last value's answer`,
    await shownAnswer(page, 1),
    native(QUESTIONS.at(-1), 1, []),
  );
  /* Hostile questions, stop, the link. */
  for (const question of ["</script><b>", "\u{1F600} \u00e9", "", "x ".repeat(3000)]) {
    await page.evaluate(q => {
      const x = document.getElementById("question");
      x.value = q;
      x.dispatchEvent(new Event("input"));
    }, question);
    await settled(page);
  }
  check(
    `${name}: no answer is left of a question that can't be asked`,
    await page.evaluate(() => document.querySelectorAll("#answers .tok").length),
    0,
  );
  /* Stop at the first token: what there is stays, the rest is never done. The hand may come too
   * late where other programs have the machine, but not each time. */
  let stopped;
  for (let i = 0; i < 5 && !(stopped && stopped[2]); i++)
    stopped = await page.evaluate(async question => {
      const x = document.getElementById("question"),
        answer = document.getElementById("answer-0");
      x.value = "x ".repeat(3000);
      x.dispatchEvent(new Event("input"));
      while (answer.querySelector(".tok")) await new Promise(r => setTimeout(r, 1));
      const begun = new Promise(done => {
        new MutationObserver((_, observer) => {
          if (!answer.querySelector(".tok")) return;
          observer.disconnect();
          document.getElementById("stop").click();
          done(answer.textContent);
        }).observe(answer, {childList: true});
      });
      x.value = question;
      x.dispatchEvent(new Event("input"));
      const there = await begun;
      await new Promise(r => setTimeout(r, 1000));
      return [
        there.length > 0,
        answer.textContent.startsWith(there),
        document.body.dataset.done !== document.body.dataset.asked,
      ];
    }, QUESTIONS[0]);
  check(`${name}: stopped midway, the text stays`, stopped, [true, true, true]);
  await change(page, "lpos", "5");
  await change(page, "question", QUESTIONS[0]);
  check(`${name}: goes on after stop`, await shownAnswer(page, 1), native(QUESTIONS[0], 1, []));
  const before = await page.evaluate(() =>
    [...document.querySelectorAll("#live input, #live select, #live textarea")].map(x => [
      x.id,
      x.type === "checkbox" ? x.checked : x.value,
    ]),
  );
  const hash = await page.evaluate(() => location.hash);
  check(`${name}: console`, page.faults, []);
  await page.close();
  const again = await visit(browser, file, {hash: hash});
  await settled(again);
  check(
    `${name}: the link restores every control`,
    await again.evaluate(() =>
      [...document.querySelectorAll("#live input, #live select, #live textarea")].map(x => [
        x.id,
        x.type === "checkbox" ? x.checked : x.value,
      ]),
    ),
    before,
  );
  await again.focus("#tab-live");
  await again.keyboard.press("ArrowRight");
  check(
    `${name}: the report's tab`,
    await again.evaluate(() => [
      document.getElementById("live").hidden,
      document.getElementById("report").hidden,
      document.querySelectorAll("#report .mark-bar").length > 0,
    ]),
    [true, false, true],
  );
  await again.close();
}

/* ---- All of it ---- */
const DARK = {"layout.css.prefers-color-scheme.content-override": 0},
  LIGHT = {"layout.css.prefers-color-scheme.content-override": 1};
const launch = (browser, executable, colours = LIGHT) =>
  puppeteer.launch({
    browser: browser,
    executablePath: executable,
    headless: true,
    timeout: PATIENCE,
    protocolTimeout: PATIENCE,
    extraPrefsFirefox: {"ui.prefersReducedMotion": 1, ...colours},
    args: browser === "chrome" ? ["--no-sandbox", "--disable-gpu"] : [],
  });
const where = names =>
  names
    .map(n => {
      try {
        return execFileSync("which", [n], {encoding: "utf8"}).trim();
      } catch {
        return "";
      }
    })
    .find(Boolean);
execFileSync("./steer", ["vector", model, "--out", "build/page.vec"], {cwd: root, stdio: "ignore"});
const live = path.join(root, "build/steer.html"),
  boxPage = join("box.html", boxText),
  realPage = join("real.html", realText);

const chromium = await launch(
  "chrome",
  process.env.CHROMIUM || where(["chromium", "chromium-headless-shell", "google-chrome"]),
);
try {
  await testReport(chromium, "box model", box, boxPage);
  await testModels(chromium, "real model", real);
  await testHostile(chromium);
  await testMarkup(chromium);
  await testMethods(chromium, realPage, real);
  await testBehaviour(chromium);
  await testControl(chromium);
  await testPrint(chromium, boxPage, live, box);
  await testKeys(chromium, "keys, report", boxPage, false);
  await testKeys(chromium, "keys, live", live, true);
  await testFirst(chromium, "Chromium");
  if (quiet) await testTimes(chromium, "Chromium");
  await testLive(chromium, "Chromium");
  await testLooks(chromium, "box", boxPage, [""]);
  await testLooks(chromium, "real", realPage, [""]);
  await testLooks(chromium, "live", live, ["live", "report"]);
} catch (error) {
  check("Chromium: " + error.stack, false);
}
await chromium.close();
const fox = process.env.FIREFOX || where(["firefox-esr", "firefox"]);
if (process.env.SKIP_FIREFOX) console.log("skipped: Firefox");
else {
  const firefox = await launch("firefox", fox);
  try {
    await testReport(firefox, "box model in Firefox", box, boxPage);
    await testHostile(firefox);
    await testFirst(firefox, "Firefox");
    if (quiet) await testTimes(firefox, "Firefox");
    await testLive(firefox, "Firefox");
    await testModels(firefox, "real model in Firefox", real);
    await testControl(firefox);
    await testLooks(firefox, "live in Firefox", live, ["live", "report"], ["light"]);
    await testLooks(firefox, "real in Firefox", realPage, [""], ["light"]);
  } catch (error) {
    check("Firefox: " + error.stack, false);
  }
  await firefox.close();
  const dark = await launch("firefox", fox, DARK);
  try {
    await testLooks(dark, "live in Firefox", live, ["live", "report"], ["dark"]);
    await testLooks(dark, "real in Firefox", realPage, [""], ["dark"]);
  } catch (error) {
    check("Firefox, dark: " + error.stack, false);
  }
  await dark.close();
}
if (!quiet) console.log("not checked without QUIET: how long the page takes");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
