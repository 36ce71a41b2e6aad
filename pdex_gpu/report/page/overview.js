// What does not change: summary, warnings, hits, p-values, calibration, settings, definitions.

function fillHeader(report) {
  const { meta, arrays: a } = report;
  byId("summary").textContent = meta.summary;
  let withHits = 0;
  for (let t = 0; t < report.nComparisons; t++) withHits += report.hits(t) > 0;
  const sum = (values) => values.reduce((total, n) => total + n, 0);
  const tiles = [
    [grouped(report.nComparisons), report.nComparisons === 1 ? "comparison" : "comparisons"],
    [grouped(report.genes.length), report.genes.length === 1 ? "gene" : "genes"],
    [grouped(meta.n_rows), "rows"],
    [grouped(meta.n_hits), `hits, FDR ≤ ${meta.fdr}`],
    [`${grouped(sum(a.hits_up))} / ${grouped(sum(a.hits_down))}`, "up / down"],
    [grouped(withHits), "comparisons with hits"],
  ];
  byId("tiles").replaceChildren(...tiles.map(([n, text]) => h("div", {}, h("dt", {}, text), h("dd", {}, n))));
  byId("footer").textContent = `Made by pdex_gpu ${meta.version}. Everything is in this file; nothing is downloaded.`;
}

function fillNotes({ meta }) {
  byId("notes").hidden = !meta.notes.length;
  byId("notes-list").replaceChildren(...meta.notes.map(({ level, text }) => h(
    "li", { class: level }, h("span", { class: "level" }, level === "warning" ? "Warning" : "Note"), h("span", {}, text),
  )));
}

// The row of the strongest hit of each comparison; -1 without.
function strongestHits(report) {
  const { rows, arrays: a } = report;
  return Array.from({ length: report.nComparisons }, (_, t) => {
    const start = report.start(t);
    let best = -1;
    for (let i = start; i < start + a.row_hits[t]; i++) {
      if (best < 0 || rows.log10P[i] < rows.log10P[best]) best = i;
    }
    return best;
  });
}

function fillHits(report, order, go, geneGo) {
  const { arrays: a, meta } = report;
  const body = byId("hits-body");
  if (!report.nComparisons) {
    body.replaceChildren(h("p", {}, "The result has no comparisons."));
    return;
  }
  const items = order.map((t) => ({
    name: shownName(report.names[t]), up: a.hits_up[t], down: a.hits_down[t], level: a.hits_level[t], go: go[t],
  }));
  const best = strongestHits(report);
  const label = `Hits of ${counted(items.length, "comparison")}, up and down. Most hits: `
    + `${items.slice(0, 5).map((item) => `${item.name} with ${grouped(item.up)} up and ${grouped(item.down)} down`).join("; ")}. The table lists all.`;
  const chart = hitChart(items, label);
  const number = (title, values, name, more = {}) => ({
    title, key: (t) => values[t], cell: (t) => grouped(values[t]), first: true,
    files: [{ name, value: (t) => String(values[t]) }], ...more,
  });
  const total = Array.from({ length: report.nComparisons }, (_, t) => report.hits(t));
  const labels = [{ name: "target", value: (t) => quoted(report.labelOf("target", t)) },
    { name: "reference", value: (t) => quoted(report.labelOf("reference", t)) }];
  if (meta.within !== null) labels.push({ name: meta.within, value: (t) => quoted(report.labelOf("within", t)) });
  const strong = (t) => (best[t] < 0 ? "" : report.genes[report.rows.gene[best[t]]]);
  const columns = [
    {
      title: "Perturbation", text: true, header: true, key: (t) => report.names[t],
      cell: (t) => h("a", { href: go[t] }, nameOf(report.names[t])), files: labels,
    },
    number("Hits", total, "hits"),
    number("Up", a.hits_up, "up"),
    number("Down", a.hits_down, "down"),
    {
      title: "Strongest hit", text: true, key: (t) => strong(t) || "\uffff",
      cell: (t) => (best[t] < 0 ? MISSING : h("a", { href: geneGo[report.rows.gene[best[t]]] }, nameOf(strong(t)))),
      files: [{ name: "strongest_hit", value: (t) => quoted(strong(t)) }],
    },
    number("Genes tested", a.rows, "rows"),
    ...meta.n_cells.slice().reverse().map((side) => number(
      side === "target" ? "Cells" : "Reference cells", a[`cells_${side}`], `${side}_n_cells`,
    )),
  ];
  if (a.own_gene.some((g) => g >= 0)) {
    const own = (t) => a.own_size[t];
    columns.push({
      title: `Own gene ${report.effect.inner}`, hint: `${report.effect.axis} of the perturbation's own gene`, key: own,
      cell: (t) => (a.own_gene[t] < 0 ? MISSING : `${report.effect.text(own(t))}${a.own_hit[t] ? " *" : ""}`),
      files: [{ name: "own_gene", value: (t) => quoted(a.own_gene[t] < 0 ? "" : report.genes[a.own_gene[t]]) },
        { name: `own_gene_${report.effect.column}`, value: (t) => (a.own_gene[t] < 0 ? "" : exact(own(t))) },
        { name: "own_gene_hit", value: (t) => (a.own_hit[t] ? "true" : "false") }],
    });
  }
  const table = new Table({
    caption: "Hits per perturbation", columns, rows: order, sorted: 1, descending: true,
    file: ["hits"], empty: "No comparisons.",
  });
  const some = items.length <= MOST_BARS;
  body.replaceChildren(
    chart.element,
    some ? "" : list("legend", [[h("span", { class: "up" }, "▲ up")], [h("span", { class: "down" }, "▼ down")],
      ["hover over the chart for names; click to show one"]]),
    h("div", { class: "tools" }, h("span", { class: "grow hint" }, a.own_gene.some((g) => g >= 0) ? "* own gene is a hit" : ""),
      table.saveButton("Save table as CSV", () => table.rows)),
    table.element,
  );
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
