// A comparison or a gene: its volcano, and the rows of it that are listed.

// What a row's volcano point is; names(i) is what it is called there.
function pointOf(report, i, nameAt, goTo) {
  const { rows } = report;
  const log = rows.log10P[i];
  const zero = log === -Infinity;
  const size = report.size(i);
  return {
    x: size, y: zero ? EDGE : -log, zero, hit: report.hit[i] === 1,
    direction: report.direction(i), name: nameAt(i), go: goTo(i),
    text: () => `${cut(shownName(nameAt(i)), 60)}\n${report.effect.axis} ${report.effect.text(size)}\np ${fromLog10(log)}, FDR ${fromLog10(rows.log10Fdr[i])}`,
  };
}

function hitCell(report, i) {
  if (!report.hit[i]) return MISSING;
  const way = report.direction(i);
  if (!way) return "neither";
  return h("span", { class: way > 0 ? "up" : "down" }, way > 0 ? "▲ up" : "▼ down");
}

// Columns of rows; the first is the gene or the comparison.
function rowColumns(report, first) {
  const { rows } = report;
  const comparison = (i) => report.comparison[i];
  const labels = [{ name: "target", value: (i) => quoted(report.labelOf("target", comparison(i))) },
    { name: "reference", value: (i) => quoted(report.labelOf("reference", comparison(i))) }];
  if (report.meta.within !== null) {
    labels.push({ name: report.meta.within, value: (i) => quoted(report.labelOf("within", comparison(i))) });
  }
  labels.push({ name: "feature", value: (i) => quoted(report.identifier(rows.gene[i])) });
  if (report.meta.symbols) labels.push({ name: "symbol", value: (i) => quoted(report.meta.symbols[rows.gene[i]]) });
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
      title: "Hit", hint: "up or down, if FDR and effect pass the cut-offs", text: true, first: true,
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
    number("Mean", `mean of the ${report.noun.one}`, rows.targetMean, short, "target_mean", { first: true }),
    number("Reference", "mean of the reference", rows.referenceMean, short, "reference_mean", { first: true }),
    ...cellColumns(report),
    number("Statistic", "statistic of the test", rows.statistic, short, "statistic", { first: true }),
  ];
}

// Numbers of cells on both sides, where the result has them.
function cellColumns(report) {
  const sides = { target: ["Cells", `cells of the ${report.noun.one}`], reference: ["Ref. cells", "cells of the reference"] };
  return Object.entries(sides).filter(([side]) => report.rows.fewer[side]).map(([side, [title, hint]]) => ({
    title, hint, first: true, key: (i) => report.cells(side, i), cell: (i) => grouped(report.cells(side, i)),
    files: [{ name: `${side}_n_cells`, value: (i) => String(report.cells(side, i)) }],
  }));
}

// The strongest first: by p-value, then by effect.
function byStrength(report, rows) {
  const size = (i) => Math.abs(report.size(i)) || 0;
  const { log10P } = report.rows;
  const last = (i) => (Number.isNaN(log10P[i]) ? Infinity : log10P[i]);
  return rows.slice().sort((a, b) => last(a) - last(b) || size(b) - size(a) || a - b);
}

// What a table can be limited to: test(report, i).
const SHOWN = [
  ["all", "all rows on this page", () => true],
  ["hits", "hits", (report, i) => report.hit[i]],
  ["up", "hits up", (report, i) => report.hit[i] && report.direction(i) > 0],
  ["down", "hits down", (report, i) => report.hit[i] && report.direction(i) < 0],
  ["list", "genes of your list", (report, i, genes) => genes.has(report.rows.gene[i])],
];

// A comparison or a gene. Returns its charts, heading and nodes, and update(), for new cut-offs.
// facts(): what is said above the picture. people: what rows are called;
// copiedAt(i): what is copied of a row. genes: of a pasted list.
function rowsView(report, genes, { kind, name, nth, facts, rows, total, behind, undrawn, first, nameAt, copiedAt = nameAt, goTo, people, sends }) {
  const strong = byStrength(report, rows);
  const shown = { points: [], least: 0 };
  const binned = behind ? behind.counts.reduce((sum, k) => sum + k, 0) : 0;
  const file = [kind.toLowerCase(), name];
  const chart = volcano({ shown, behind, xTitle: report.effect.axis, label: "", file: [...file, "volcano"] });
  const table = new Table({
    caption: `${kind} ${name}`, columns: rowColumns(report, first), rows: strong, sorted: 3, file,
    empty: "No rows.", page: 15,
  });
  const factList = h("ul", { class: "facts" });
  const legend = h("ul", { class: "legend" });
  const limited = () => {
    const [, , test] = SHOWN.find(([id]) => id === choice.value);
    return strong.filter((i) => test(report, i, genes));
  };
  const choice = h(
    "select",
    {
      id: "shown",
      onchange: () => {
        table.setRows(limited());
        send.update();
      },
    },
    ...SHOWN.filter(([id]) => id !== "list" || (genes.size && kind !== "Gene"))
      .map(([id, text]) => h("option", { value: id }, text)),
  );
  const send = new HitList({
    what: people, description: `${report.meta.title}: ${name}`, services: sends,
    names: () => limited().filter((i) => report.hit[i]).map(copiedAt),
  });
  const whole = strong.length >= total;

  function update() {
    shown.points = strong.map((i) => pointOf(report, i, nameAt, goTo));
    shown.least = report.cutoffs.size;
    const n = (check) => shown.points.filter(check).length;
    const [up, down] = [n((p) => p.hit && p.direction > 0), n((p) => p.hit && p.direction < 0)];
    const others = shown.points.length - n((p) => p.hit);
    const best = shown.points.filter((p) => p.hit).slice(0, 5).map((p) => p.name).join(", ");
    setItems(factList, facts());
    setItems(legend, [
      [h("span", { class: "up" }, "▲"), ` ${grouped(up)} up`],
      [h("span", { class: "down" }, "▼"), ` ${grouped(down)} down`],
      others ? [`● ${grouped(others)} other strong ${people.many}`] : null,
      binned ? [h("span", { class: "swatch" }), `${grouped(binned)} others, binned`] : null,
      shown.points.some((p) => p.zero) ? ["◎ p-value 0, drawn at the edge"] : null,
      undrawn ? [`${grouped(undrawn)} not drawn`] : null,
    ]);
    table.replaceRows(limited());
    send.update();
    chart.update(
      `Volcano plot of ${name}, p-value against ${report.effect.axis}: ${grouped(up)} hits up, ${grouped(down)} down. `
      + `${best ? `Strongest: ${best}. ` : ""}The table lists the rows.`,
    );
  }

  return {
    charts: [chart],
    update,
    heading: h("h3", { tabindex: "-1" }, nameOf(name), nth > 1 ? ` (no. ${nth} with this name)` : ""),
    nodes: [
      factList,
      h(
        "div", { class: "split" },
        h("div", {}, chart.element, legend, pictureButtons(chart, "plot")),
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
          send.element,
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

// The own gene's name, where it is not the comparison's.
function ownName(report, t) {
  const name = report.genes[report.arrays.own_gene[t]];
  return name === report.labelOf("target", t) ? "" : ` ${shownName(name)}`;
}

const fact = (value, text) => [h("b", {}, value), ` ${text}`];

const GENES = { one: "gene", many: "genes" };

// The first column of rows: links to genes, or to comparisons.
function geneColumn(report, geneGo) {
  const gene = (i) => report.rows.gene[i];
  return {
    title: "Gene", key: (i) => report.genes[gene(i)],
    cell: (i) => h("a", { href: geneGo[gene(i)], title: report.meta.identifiers && report.identifier(gene(i)) }, nameOf(report.genes[gene(i)])),
  };
}

function comparisonColumn(report, comparisonGo) {
  const t = (i) => report.comparison[i];
  return {
    title: capital(report.noun.one), key: (i) => report.names[t(i)],
    cell: (i) => h("a", { href: comparisonGo[t(i)] }, nameOf(report.names[t(i)])),
  };
}

function comparisonView(report, genes, t, nth, geneGo) {
  const { arrays: a, meta, rows } = report;
  const own = a.own_gene[t];
  const left = a.hits_up[t] + a.hits_down[t] + a.hits_level[t] - a.row_hits[t];
  const facts = () => [
    ["against ", h("b", {}, nameOf(report.labelOf("reference", t)))],
    meta.within === null ? null : [`${meta.within}: `, h("b", {}, nameOf(report.labelOf("within", t)))],
    fact(grouped(report.hits(t)), report.hits(t) === 1 ? "hit" : "hits"),
    fact(grouped(a.rows[t]), "genes tested"),
    meta.n_cells.length === 2
      ? fact(`${grouped(a.cells_target[t])} / ${grouped(a.cells_reference[t])}`, `cells (${report.noun.one} / reference)`)
      : null,
    own < 0 ? null : [`own gene${ownName(report, t)}: ${report.effect.axis} `, h("b", {}, report.effect.text(a.own_size[t])),
      report.ownHit[t] ? " (a hit)" : " (not a hit)"],
    left ? [`the ${grouped(a.row_hits[t])} strongest hits are shown, ${grouped(left)} are left out`] : null,
  ];
  return rowsView(report, genes, {
    kind: capital(report.noun.one),
    name: report.names[t],
    nth,
    facts,
    rows: report.rowsOfComparison(t),
    total: a.rows[t],
    behind: report.behind("behind", t),
    undrawn: a.undrawn[t],
    people: GENES,
    sends: SERVICES,
    nameAt: (i) => report.genes[rows.gene[i]],
    copiedAt: (i) => report.symbol(rows.gene[i]),
    goTo: (i) => geneGo[rows.gene[i]],
    first: geneColumn(report, geneGo),
  });
}

function geneView(report, genes, g, nth, comparisonGo) {
  const { arrays: a, noun } = report;
  const rows = report.rowsOfGene(g);
  const facts = () => {
    const hits = report.geneHits(g);
    const listed = rows.reduce((sum, i) => sum + report.hit[i], 0);
    return [
      report.meta.identifiers ? [h("b", {}, nameOf(report.identifier(g)))] : null,
      ["a hit in ", h("b", {}, grouped(hits)), ` of ${counted(a.gene_rows[g], noun.one, noun.many)} tested`],
      fact(grouped(report.geneUp[g]), "up"),
      fact(grouped(report.geneDown[g]), "down"),
      hits > listed ? [`${grouped(hits - listed)} hits are not on this page`] : null,
    ];
  };
  return rowsView(report, genes, {
    kind: "Gene",
    name: report.genes[g],
    nth,
    facts,
    rows,
    total: a.gene_rows[g],
    behind: report.behind("behind_gene", g),
    undrawn: a.gene_undrawn[g],
    people: noun,
    sends: [],
    nameAt: (i) => report.names[report.comparison[i]],
    goTo: (i) => comparisonGo[report.comparison[i]],
    first: comparisonColumn(report, comparisonGo),
  });
}

// What is shown for a name that is not in the result.
function missingView(report, kind, name, close) {
  const what = kind === "target" ? report.noun.one : "gene";
  return {
    charts: [],
    update: () => {},
    heading: h("h3", { tabindex: "-1" }, `No ${what} is called `, nameOf(name)),
    nodes: close.length
      ? [h("p", {}, "Similar names:"), list("", close.map((entry) => [h("a", { href: entry.go }, nameOf(entry.name)), ` (${entry.kind})`]))]
      : [h("p", {}, "There are no similar names. The search also finds parts of names.")],
  };
}
