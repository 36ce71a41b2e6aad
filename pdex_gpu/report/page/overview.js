// Around the view: summary, warnings, hits, p-values, calibration, settings, definitions.

function fillHeader(report) {
  const { meta } = report;
  byId("summary").textContent = meta.summary;
  fillTiles(report);
  byId("footer").textContent = `Made by pdex_gpu ${meta.version}. Everything is in this file; nothing is downloaded.`;
}

function fillTiles(report) {
  const { meta, cutoffs } = report;
  const { up, down, hits, withHits } = totals(report);
  const effect = cutoffs.size ? `, |${report.effect.axis}| ≥ ${cutoffs.size}` : "";
  const tiles = [
    [grouped(report.nComparisons), report.nComparisons === 1 ? "comparison" : "comparisons"],
    [grouped(report.genes.length), report.genes.length === 1 ? "gene" : "genes"],
    [grouped(meta.n_rows), "rows"],
    [grouped(hits), `hits, FDR ≤ ${cutoffs.fdr}${effect}`],
    [`${grouped(up)} / ${grouped(down)}`, "up / down"],
    [grouped(withHits), "comparisons with hits"],
  ];
  byId("tiles").replaceChildren(...tiles.map(([n, text]) => h("div", {}, h("dt", {}, text), h("dd", {}, n))));
}

function fillNotes({ meta }) {
  byId("notes").hidden = !meta.notes.length;
  byId("notes-list").replaceChildren(...meta.notes.map(({ level, text }) => h(
    "li", { class: level }, h("span", { class: "level" }, level === "warning" ? "Warning" : "Note"), h("span", {}, text),
  )));
}

// Comparisons, most hits first.
function mostHits(report) {
  const order = report.names.map((_, t) => t);
  return order.sort((a, b) => report.hits(b) - report.hits(a) || a - b);
}

// Hits per comparison, as a picture and as a table.
class Hits {
  constructor(report, go, geneGo) {
    Object.assign(this, { report, go, geneGo, shown: { items: [] } });
    const body = byId("hits-body");
    if (!report.nComparisons) {
      this.update = () => {};
      body.replaceChildren(h("p", {}, "The result has no comparisons."));
      return;
    }
    const order = mostHits(report);
    this.fillItems(order);
    this.chart = hitChart(this.shown, this.label(), report.noun);
    this.table = new Table({
      caption: `Hits per ${report.noun.one}`, columns: this.columns(), rows: order, sorted: 1, descending: true,
      file: ["hits"], empty: "No comparisons.",
    });
    const some = order.length <= MOST_BARS;
    const own = report.arrays.own_gene.some((g) => g >= 0);
    body.replaceChildren(
      this.chart.element,
      some ? "" : list("legend", [[h("span", { class: "up" }, "▲ up")], [h("span", { class: "down" }, "▼ down")],
        ["hover over the chart for names; click to show one"]]),
      pictureButtons(this.chart, "chart"),
      h("div", { class: "tools" }, h("span", { class: "grow hint" }, own ? "* own gene is a hit" : ""),
        this.table.saveButton("Save table as CSV", () => this.table.rows), this.rowsButton()),
      this.table.element,
    );
  }

  update() {
    const order = mostHits(this.report);
    this.fillItems(order);
    this.chart.update(this.label());
    this.table.replaceRows(order);
  }

  // Saves the rows of all comparisons that the page has.
  rowsButton() {
    const { report } = this;
    const all = report.rows.n === report.meta.n_rows;
    const file = all ? ["rows"] : [`${report.rows.n}-of-${report.meta.n_rows}-rows`];
    const save = () => {
      const columns = filed(rowColumns(report, comparisonColumn(report, this.go)));
      download(fileName(file, "csv"), csvBlob(columns, Array.from({ length: report.rows.n }, (_, i) => i)));
    };
    const text = `Save ${all ? "all" : "the"} ${counted(report.rows.n, "row")} of this page as CSV`;
    return h("button", { type: "button", onclick: save, title: all ? null : `The results file has all ${grouped(report.meta.n_rows)}.` }, text);
  }

  fillItems(order) {
    const { up, down, level, names } = this.report;
    this.shown.items = order.map((t) => ({
      name: shownName(names[t]), up: up[t], down: down[t], level: level[t], go: this.go[t],
    }));
  }

  label() {
    const { items } = this.shown;
    const most = items.slice(0, 5).map((item) => `${item.name} with ${grouped(item.up)} up and ${grouped(item.down)} down`);
    return `Hits of ${counted(items.length, "comparison")}, up and down. Most hits: ${most.join("; ")}. The table lists all.`;
  }

  columns() {
    const { report, go, geneGo } = this;
    const { arrays: a, meta } = report;
    const number = (title, value, name) => ({
      title, key: value, cell: (t) => grouped(value(t)), first: true,
      files: [{ name, value: (t) => String(value(t)) }],
    });
    const labels = [{ name: "target", value: (t) => quoted(report.labelOf("target", t)) },
      { name: "reference", value: (t) => quoted(report.labelOf("reference", t)) }];
    if (meta.within !== null) labels.push({ name: meta.within, value: (t) => quoted(report.labelOf("within", t)) });
    const gene = (t) => report.rows.gene[report.best[t]];
    const strong = (t) => (report.best[t] < 0 ? "" : report.genes[gene(t)]);
    const columns = [
      {
        title: capital(report.noun.one), text: true, header: true, key: (t) => report.names[t],
        cell: (t) => h("a", { href: go[t] }, nameOf(report.names[t])), files: labels,
      },
      number("Hits", (t) => report.hits(t), "hits"),
      number("Up", (t) => report.up[t], "up"),
      number("Down", (t) => report.down[t], "down"),
      {
        title: "Strongest hit", text: true, key: (t) => strong(t) || "\uffff",
        cell: (t) => (report.best[t] < 0 ? MISSING : h("a", { href: geneGo[gene(t)] }, nameOf(strong(t)))),
        files: [{ name: "strongest_hit", value: (t) => quoted(strong(t)) }],
      },
      number("Genes tested", (t) => a.rows[t], "rows"),
      ...meta.n_cells.slice().reverse().map((side) => number(
        side === "target" ? "Cells" : "Reference cells", (t) => a[`cells_${side}`][t], `${side}_n_cells`,
      )),
    ];
    return a.own_gene.some((g) => g >= 0) ? [...columns, this.ownColumn()] : columns;
  }

  ownColumn() {
    const { report } = this;
    const { arrays: a } = report;
    const own = (t) => a.own_size[t];
    return {
      title: `Own gene ${report.effect.inner}`, hint: `${report.effect.axis} of the own gene of the ${report.noun.one}`, key: own,
      cell: (t) => (a.own_gene[t] < 0 ? MISSING : `${report.effect.text(own(t))}${report.ownHit[t] ? " *" : ""}`),
      files: [{ name: "own_gene", value: (t) => quoted(a.own_gene[t] < 0 ? "" : report.genes[a.own_gene[t]]) },
        { name: `own_gene_${report.effect.column}`, value: (t) => (a.own_gene[t] < 0 ? "" : exact(own(t))) },
        { name: "own_gene_hit", value: (t) => (report.ownHit[t] ? "true" : "false") }],
    };
  }
}

function fillPValues({ meta }) {
  const { histogram: counts, uninformative, pi0 } = meta.p_values;
  const total = counts.reduce((sum, n) => sum + n, 0);
  const uniform = total / counts.length;
  const levels = total ? [{ at: uniform }, { at: pi0 * uniform, dash: [2, 4] }] : [];
  const chart = histogram({
    counts, levels,
    label: total
      ? `Histogram of ${counted(total, "p-value")}. If uniform, each of ${counts.length} bins would have ${grouped(Math.round(uniform))}; the first bin, up to ${1 / counts.length}, has ${grouped(counts[0])}.`
      : "Histogram of p-values: no p-values.",
  });
  const share = (n) => `${((100 * n) / total).toFixed(1)} %`;
  const facts = [
    ["Tests", grouped(total)],
    total ? [`p < ${1 / counts.length}`, `${grouped(counts[0])} (${share(counts[0])})`] : null,
    total ? ["Without effect", `${(100 * pi0).toFixed(1)} % (Storey's estimate from p > 0.5)`] : null,
    uninformative ? ["Left out", `${counted(uninformative, "test")} (gene not expressed, or test undefined)`] : null,
  ].filter(Boolean);
  byId("p-values-body").replaceChildren(
    h("p", { class: "hint" }, "Without effects, p-values are uniform; with effects, they pile up near 0."),
    chart.element,
    list("legend", total ? [
      [h("span", { class: "stroke" }), "if all were uniform (no effects)"],
      [h("span", { class: "stroke dotted" }), "genes without effect"],
    ] : []),
    h("dl", { class: "figures" }, ...facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
  );
}

function fillCalibration({ meta }) {
  const body = byId("calibration-body");
  const found = meta.calibration;
  if (!found) {
    body.replaceChildren(
      h("p", {}, "No calibration was given, so it is unknown whether these p-values are calibrated. To find out, compare control cells with control cells, where every hit is false. The command"),
      h("p", {}, h("code", {}, "pdex-gpu calibrate")),
      h("p", { class: "hint" }, "makes a calibration from the screen; pass it to the report with --calibration (in Python: calibration=)."),
    );
    return;
  }
  const several = found.head[1] === "p-values";
  const chart = quantilePlot({
    ...found,
    label: `QQ plot of ${found.kind} p-values between control cells. The table above has the numbers.`,
  });
  const facts = found.facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]);
  const cell = ([text, off], i) => h(
    i ? "td" : "th", { ...(i ? {} : { scope: "row" }), class: i === 0 || (several && i === 1) ? "text" : "" },
    off ? h("strong", { class: "off" }, text) : text,
  );
  body.replaceChildren(
    h("p", { class: "hint" }, "Control cells compared with control cells: every hit is false. Small p-values, observed over expected: 1 is right; above 1, p-values are too small. In parentheses: fewer than 10 expected, so that the ratio is uncertain."),
    h("div", { class: "scroll", role: "region", "aria-label": "Observed over expected p-values", tabindex: "0" }, h(
      "table", { class: "excess" },
      h("thead", {}, h("tr", {}, ...found.head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...found.rows.map((row) => h("tr", {}, ...row.map(cell)))),
    )),
    h("p", {}, found.checked),
    chart.element,
    list("legend", [
      [h("span", { class: "swatch band" }), "95 % band of independent uniform p-values"],
      several && [`points: ${found.kind} p-values`],
    ]),
    h("dl", { class: "figures" }, ...facts),
  );
}

function fillSettings({ meta }) {
  byId("settings-body").replaceChildren(...meta.settings.map(([heading, lines]) => h(
    "div", {}, h("h3", {}, heading),
    h("dl", {}, ...lines.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
  )));
  byId("definitions-body").replaceChildren(
    ...meta.definitions.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]),
  );
}
