// A perturbation or a gene: its volcano, and the rows of it that are listed.

// What a row's volcano point is; names(i) is what it is called there.
function pointOf(report, i, nameAt, goTo) {
  const { rows } = report;
  const log = rows.log10P[i];
  const zero = log === -Infinity;
  const size = report.size(i);
  return {
    x: size, y: zero ? EDGE : -log, zero, hit: report.hit[i] === 1,
    direction: report.direction(i), name: nameAt(i), go: goTo(i),
    text: `${cut(shownName(nameAt(i)), 60)}\n${report.effect.axis} ${report.effect.text(size)}\np ${fromLog10(log)}, FDR ${fromLog10(rows.log10Fdr[i])}`,
  };
}

function hitCell(report, i) {
  if (!report.hit[i]) return MISSING;
  const way = report.direction(i);
  if (!way) return "neither";
  return h("span", { class: way > 0 ? "up" : "down" }, way > 0 ? "▲ up" : "▼ down");
}

// Columns of rows; the first is the gene or the perturbation.
function rowColumns(report, first) {
  const { rows } = report;
  const comparison = (i) => report.comparison[i];
  const labels = [{ name: "target", value: (i) => quoted(report.labelOf("target", comparison(i))) },
    { name: "reference", value: (i) => quoted(report.labelOf("reference", comparison(i))) }];
  if (report.meta.within !== null) {
    labels.push({ name: report.meta.within, value: (i) => quoted(report.labelOf("within", comparison(i))) });
  }
  labels.push({ name: "feature", value: (i) => quoted(report.genes[rows.gene[i]]) });
  const number = (title, hint, values, cell, name, more = {}) => ({
    title, hint, key: (i) => values[i], cell: (i) => cell(values[i]),
    files: [{ name, value: (i) => exact(values[i]) }], ...more,
  });
  // As a number and, where that may be too small for one, as its logarithm.
  const logarithm = (title, hint, values, name, log) => ({
    title, hint, key: (i) => values[i], cell: (i) => fromLog10(values[i]),
    files: [{ name, value: (i) => probability(values[i]) }, { name: log, value: (i) => exact(values[i]) }],
  });
  return [
    { ...first, text: true, header: true, files: labels },
    {
      title: "Hit", hint: "up or down, if the FDR is at or below the threshold", text: true, first: true,
      key: (i) => (report.hit[i] ? 2 + report.direction(i) : 0), cell: (i) => hitCell(report, i),
      files: [{ name: "hit", value: (i) => (report.hit[i] ? "true" : "false") }],
    },
    {
      title: report.effect.short, hint: report.effect.axis, first: true, key: (i) => report.size(i),
      cell: (i) => report.effect.text(report.size(i)),
      files: [{ name: report.effect.column, value: (i) => exact(Math.fround(report.size(i))) }],
    },
    logarithm("p-value", "p-value of the test", rows.log10P, "p_value", "log10_p"),
    logarithm("FDR", "adjusted p-value", rows.log10Fdr, "fdr", "log10_fdr"),
    number("Mean", "mean of the perturbation", rows.targetMean, short, "target_mean", { first: true }),
    number("Reference", "mean of the reference", rows.referenceMean, short, "reference_mean", { first: true }),
    number("Statistic", "statistic of the test", rows.statistic, short, "statistic", { first: true }),
  ];
}

// The strongest first: by p-value, then by effect.
function byStrength(report, rows) {
  const size = (i) => Math.abs(report.size(i)) || 0;
  const { log10P } = report.rows;
  const last = (i) => (Number.isNaN(log10P[i]) ? Infinity : log10P[i]);
  return rows.slice().sort((a, b) => last(a) - last(b) || size(b) - size(a) || a - b);
}

const SHOWN = [
  ["all", "all rows on this page", () => true],
  ["hits", "hits", (report, i) => report.hit[i]],
  ["up", "hits up", (report, i) => report.hit[i] && report.direction(i) > 0],
  ["down", "hits down", (report, i) => report.hit[i] && report.direction(i) < 0],
];

function rowsView(report, { kind, name, nth, facts, rows, total, behind, undrawn, first, nameAt, goTo, what }) {
  const strong = byStrength(report, rows);
  const points = strong.map((i) => pointOf(report, i, nameAt, goTo));
  const n = (test) => points.filter(test).length;
  const [up, down] = [n((p) => p.hit && p.direction > 0), n((p) => p.hit && p.direction < 0)];
  const others = points.length - n((p) => p.hit);
  const best = points.filter((p) => p.hit).slice(0, 5).map((p) => p.name).join(", ");
  const chart = volcano({
    points, behind, xTitle: report.effect.axis,
    label: `Volcano plot of ${name}, p-value against ${report.effect.axis}: ${grouped(up)} hits up, ${grouped(down)} down. `
      + `${best ? `Strongest: ${best}. ` : ""}The table lists the rows.`,
  });
  const binned = behind ? behind.counts.reduce((sum, k) => sum + k, 0) : 0;
  const table = new Table({
    caption: `${kind} ${name}`, columns: rowColumns(report, first), rows: strong, sorted: 3,
    file: [kind.toLowerCase(), name], empty: "No rows.", page: 15,
  });
  const choice = h(
    "select",
    {
      id: "shown",
      onchange: (event) => {
        const [, , test] = SHOWN.find(([id]) => id === event.target.value);
        table.setRows(strong.filter((i) => test(report, i)));
      },
    },
    ...SHOWN.map(([id, text]) => h("option", { value: id }, text)),
  );
  const whole = strong.length >= total;
  const zeros = points.some((p) => p.zero);
  return {
    charts: [chart],
    heading: h("h3", { tabindex: "-1" }, nameOf(name), nth > 1 ? ` (no. ${nth} with this name)` : ""),
    nodes: [
      list("facts", facts),
      h(
        "div", { class: "split" },
        h(
          "div", {},
          chart.element,
          list("legend", [
            [h("span", { class: "up" }, "▲"), ` ${grouped(up)} up`],
            [h("span", { class: "down" }, "▼"), ` ${grouped(down)} down`],
            others ? [`● ${grouped(others)} other strong ${what}`] : null,
            binned ? [h("span", { class: "swatch" }), `${grouped(binned)} others, binned`] : null,
            zeros ? ["◎ p-value 0, drawn at the edge"] : null,
            undrawn ? [`${grouped(undrawn)} not drawn`] : null,
          ]),
        ),
        h(
          "div", {},
          h(
            "div", { class: "tools" },
            h("label", { for: "shown" }, "Show"), choice, h("span", { class: "grow" }),
            table.saveButton("Save table as CSV", () => table.rows),
            table.saveButton(
              whole ? `Save all ${counted(total, "row")} as CSV` : `Save ${counted(strong.length, "row")} as CSV`,
              () => strong, whole ? [] : [`${strong.length}-of-${total}-rows`],
            ),
          ),
          whole ? null : h(
            "p", { class: "hint carried" },
            `This page has ${grouped(strong.length)} of ${counted(total, "row")}: hits and the strongest other rows. `
            + "The results file has all rows.",
          ),
          table.element,
        ),
      ),
    ],
  };
}

// The own gene's name, where it is not the perturbation's.
function ownName(report, t) {
  const name = report.genes[report.arrays.own_gene[t]];
  return name === report.labelOf("target", t) ? "" : ` ${shownName(name)}`;
}

const fact = (value, text) => [h("b", {}, value), ` ${text}`];

function comparisonView(report, t, nth, geneGo) {
  const { arrays: a, meta } = report;
  const hits = report.hits(t);
  const own = a.own_gene[t];
  const left = hits - a.row_hits[t];
  const cells = meta.n_cells.length === 2
    ? fact(`${grouped(a.cells_target[t])} / ${grouped(a.cells_reference[t])}`, "cells (perturbation / reference)")
    : null;
  const level = meta.within === null ? null
    : [`${meta.within}: `, h("b", {}, nameOf(report.labelOf("within", t)))];
  const { rows } = report;
  return rowsView(report, {
    kind: "Perturbation",
    name: report.names[t],
    nth,
    facts: [
      ["against ", h("b", {}, nameOf(report.labelOf("reference", t)))],
      level,
      fact(grouped(hits), hits === 1 ? "hit" : "hits"),
      fact(grouped(a.rows[t]), "genes tested"),
      cells,
      own < 0 ? null : [`own gene${ownName(report, t)}: ${report.effect.axis} `, h("b", {}, report.effect.text(a.own_size[t])),
        a.own_hit[t] ? " (a hit)" : " (not a hit)"],
      left ? [`the ${grouped(a.row_hits[t])} strongest hits are shown, ${grouped(left)} are left out`] : null,
    ],
    rows: report.rowsOfComparison(t),
    total: a.rows[t],
    behind: report.behind("behind", t),
    undrawn: a.undrawn[t],
    what: "genes",
    nameAt: (i) => report.genes[rows.gene[i]],
    goTo: (i) => geneGo[rows.gene[i]],
    first: {
      title: "Gene", key: (i) => report.genes[rows.gene[i]],
      cell: (i) => h("a", { href: geneGo[rows.gene[i]] }, nameOf(report.genes[rows.gene[i]])),
    },
  });
}

function geneView(report, g, nth, comparisonGo) {
  const { arrays: a } = report;
  const hits = report.geneHits(g);
  const rows = report.rowsOfGene(g);
  const listed = rows.reduce((sum, i) => sum + report.hit[i], 0);
  return rowsView(report, {
    kind: "Gene",
    name: report.genes[g],
    nth,
    facts: [
      [`a hit in `, h("b", {}, grouped(hits)), ` of ${counted(a.gene_rows[g], "perturbation")} tested`],
      fact(grouped(a.gene_hits_up[g]), "up"),
      fact(grouped(a.gene_hits_down[g]), "down"),
      hits > listed ? [`${grouped(hits - listed)} hits are not on this page`] : null,
    ],
    rows,
    total: a.gene_rows[g],
    behind: report.behind("behind_gene", g),
    undrawn: a.gene_undrawn[g],
    what: "perturbations",
    nameAt: (i) => report.names[report.comparison[i]],
    goTo: (i) => comparisonGo[report.comparison[i]],
    first: {
      title: "Perturbation", key: (i) => report.names[report.comparison[i]],
      cell: (i) => h("a", { href: comparisonGo[report.comparison[i]] }, nameOf(report.names[report.comparison[i]])),
    },
  });
}

// What is shown for a name that is not in the result.
function missingView(kind, name, close) {
  const what = kind === "target" ? "perturbation" : "gene";
  return {
    charts: [],
    heading: h("h3", { tabindex: "-1" }, `No ${what} is called `, nameOf(name)),
    nodes: close.length
      ? [h("p", {}, "Similar names:"), list("", close.map((entry) => [h("a", { href: entry.go }, nameOf(entry.name)), ` (${entry.kind})`]))]
      : [h("p", {}, "There are no similar names. The search also finds parts of names.")],
  };
}
