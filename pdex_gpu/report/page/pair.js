// Two comparisons side by side: their effects on each gene, and the hits that they share.

const BOTH = ["both", "A", "B", "neither"];

// The genes that either has on this page: [{g, a, b, kind}]; a and b are rows, -1 where not there.
function pairedRows(report, first, second) {
  const found = new Map();
  for (const i of report.rowsOfComparison(first)) found.set(report.rows.gene[i], { g: report.rows.gene[i], a: i, b: -1 });
  for (const i of report.rowsOfComparison(second)) {
    const entry = found.get(report.rows.gene[i]);
    if (entry) entry.b = i;
    else found.set(report.rows.gene[i], { g: report.rows.gene[i], a: -1, b: i });
  }
  return [...found.values()];
}

// What hits it is; 0 both, 1 the first, 2 the second, 3 neither. Smallest p-values first.
function judgedPairs(report, pairs) {
  const hit = (i) => i >= 0 && report.hit[i] === 1;
  const least = ({ a, b }) => Math.min(...[a, b].filter((i) => i >= 0).map((i) => report.rows.log10P[i]));
  for (const pair of pairs) {
    pair.kind = 3 - (hit(pair.a) ? 2 : 0) - (hit(pair.b) ? 1 : 0);
    pair.p = least(pair);
    pair.same = pair.kind === 0 && report.direction(pair.a) === report.direction(pair.b);
  }
  return pairs.sort((x, y) => x.kind - y.kind || x.p - y.p || x.g - y.g);
}

class Pair {
  constructor(report, order, geneGo) {
    Object.assign(this, { report, geneGo, chart: null });
    const body = byId("pair-body");
    if (report.nComparisons < 2) {
      byId("pair").hidden = true;
      return;
    }
    const select = (letter, chosen) => h(
      "select", { id: `pair-${letter}`, onchange: () => this.show() },
      ...order.map((t) => h("option", { value: t, selected: t === chosen }, cut(shownName(report.names[t]), 60))),
    );
    this.selects = [select("a", order[0]), select("b", order[1])];
    this.body = h("div", {});
    body.replaceChildren(
      h(
        "div", { class: "tools" },
        h("label", { for: "pair-a" }, "A"), this.selects[0], h("label", { for: "pair-b" }, "B"), this.selects[1],
        h("button", { type: "button", onclick: () => this.swap() }, "Swap"),
      ),
      this.body,
    );
    this.show();
  }

  swap() {
    const [a, b] = this.selects;
    [a.value, b.value] = [b.value, a.value];
    this.show();
  }

  show() {
    const { report } = this;
    if (this.chart) this.chart.remove();
    const [first, second] = this.selects.map((select) => Number(select.value));
    this.names = [report.names[first], report.names[second]];
    this.targets = [first, second];
    this.pairs = pairedRows(report, first, second);
    const file = ["A", this.names[0], "B", this.names[1]];
    this.shown = { pairs: this.pairs };
    this.chart = effectScatter({
      shown: this.shown, report, geneGo: this.geneGo, targets: this.targets, file: [...file, "effects"],
    });
    this.table = new Table({
      caption: `Genes of ${this.names.join(" and ")}`, columns: this.columns(), rows: this.pairs, sorted: 1, file,
      empty: "No rows.", page: 15,
    });
    this.choice = h(
      "select", { id: "pair-shown", onchange: () => this.table.setRows(this.limited()) },
      ...[["shared", "shared hits"], ["a", "hits of A alone"], ["b", "hits of B alone"], ["all", "all rows on this page"]]
        .map(([id, text]) => h("option", { value: id }, text)),
    );
    this.send = new HitList({
      what: GENES, description: `${report.meta.title}: ${this.names.join(" and ")}`, services: SERVICES,
      names: () => this.pairs.filter(({ kind }) => kind === 0).map(({ g }) => report.symbol(g)),
    });
    this.facts = h("ul", { class: "facts" });
    this.body.replaceChildren(
      h("div", { role: "status" }, this.facts),
      h(
        "div", { class: "split" },
        h("div", {}, this.chart.element, list("legend", [
          [h("span", { class: "up" }, "●"), " hit of both"], [h("span", { class: "down" }, "▶"), " of A alone"],
          [h("span", { class: "down" }, "▲"), " of B alone"], ["lines at the edges: the other value is not on this page"],
        ]), pictureButtons(this.chart, "plot")),
        h(
          "div", {},
          h("div", { class: "tools" }, h("label", { for: "pair-shown" }, "Show"), this.choice, h("span", { class: "grow" }),
            this.table.saveButton("Save table as CSV", () => this.table.rows)),
          this.send.element,
          this.table.element,
        ),
      ),
    );
    this.update();
  }

  limited() {
    const kind = { shared: 0, a: 1, b: 2 }[this.choice.value];
    return kind === undefined ? this.pairs : this.pairs.filter((pair) => pair.kind === kind);
  }

  update() {
    if (!this.chart) return;
    judgedPairs(this.report, this.pairs);
    const n = [0, 0, 0, 0];
    let same = 0;
    for (const { kind, same: agrees } of this.pairs) {
      n[kind]++;
      same += agrees;
    }
    const facts = [[n[0], `shared ${n[0] === 1 ? "hit" : "hits"}`], [same, "of them in the same direction"], [n[1], "of A alone"], [n[2], "of B alone"]];
    setItems(this.facts, facts.map(([k, text]) => fact(grouped(k), text)));
    this.table.replaceRows(this.limited());
    this.send.update();
    this.chart.update(
      `Effects of ${this.names[0]} (across) and ${this.names[1]} (up) on each gene: `
      + `${facts.map(([k, text]) => `${grouped(k)} ${text}`).join(", ")}. The table lists the genes.`,
    );
  }

  columns() {
    const { report, geneGo } = this;
    const { effect, rows } = report;
    const size = (pair, key) => report.sizeIn(this.targets[key === "a" ? 0 : 1], pair.g, pair[key]);
    const log = (i) => (i < 0 ? NaN : rows.log10Fdr[i]);
    const side = (letter, key, number) => [
      {
        title: `${letter}: ${effect.short}`, hint: effect.axis, first: true, key: (pair) => size(pair, key),
        cell: (pair) => effect.text(size(pair, key)),
        files: [{ name: `${effect.column}_${number}`, value: (pair) => exact(Math.fround(size(pair, key))) }],
      },
      {
        title: `${letter}: FDR`, hint: "adjusted p-value", key: (pair) => log(pair[key]), cell: (pair) => fromLog10(log(pair[key])),
        files: [{ name: `p_value_${number}`, value: (pair) => probability(pair[key] < 0 ? NaN : rows.log10P[pair[key]]) },
          { name: `fdr_${number}`, value: (pair) => probability(log(pair[key])) }],
      },
    ];
    const names = this.targets.map((t, k) => ({ name: `target_${k + 1}`, value: () => quoted(report.names[t]) }));
    const symbol = report.meta.symbols ? [{ name: "symbol", value: ({ g }) => quoted(report.meta.symbols[g]) }] : [];
    return [
      {
        title: "Gene", text: true, header: true, key: ({ g }) => report.genes[g],
        cell: ({ g }) => h("a", { href: geneGo[g] }, nameOf(report.genes[g])),
        files: [...names, { name: "feature", value: ({ g }) => quoted(report.identifier(g)) }, ...symbol],
      },
      {
        title: "Hit of", text: true, key: ({ kind }) => kind, cell: ({ kind }) => BOTH[kind],
        files: [{ name: "hit_of", value: ({ kind }) => quoted(["both", "1", "2", "neither"][kind]) }],
      },
      ...side("A", "a", 1), ...side("B", "b", 2),
    ];
  }
}

// shown: {pairs}, read whenever it is drawn.
function effectScatter({ shown, report, geneGo, targets, file }) {
  const names = targets.map((t) => report.names[t]);
  return new Chart({
    label: "",
    file,
    height: (width) => Math.round(Math.min(460, Math.max(300, width * 0.9))),
    draw(pen) {
      const { ctx, colours: c } = pen;
      const points = shown.pairs.map((pair) => ({
        ...pair, at: ["a", "b"].map((key, k) => report.sizeIn(targets[k], pair.g, pair[key])),
      }));
      let most = 0;
      for (const { at: both } of points) for (const v of both) if (Number.isFinite(v)) most = Math.max(most, Math.abs(v));
      if (!most) {
        inWords(pen, `Nothing to draw: no ${report.effect.axis}s.`);
        return [];
      }
      const ends = [-most * 1.08, most * 1.08];
      const title = (k) => `${report.effect.axis}, ${"AB"[k]}: ${cut(shownName(names[k]), 24)}`;
      const plane = axes(pen, { x: ends, y: ends, xTitle: title(0), yTitle: title(1) });
      ctx.strokeStyle = c.grey;
      stroke(ctx, [[plane.x(0), plane.top], [plane.x(0), plane.bottom]], [3, 4]);
      stroke(ctx, [[plane.left, plane.y(0)], [plane.right, plane.y(0)]], [3, 4]);
      const marks = [];
      for (let k = points.length - 1; k >= 0; k--) {
        const { g, kind, at: [a, b] } = points[k];
        if (!Number.isFinite(a) && !Number.isFinite(b)) continue;
        const mark = {
          x: Number.isFinite(a) ? plane.x(a) : plane.left + 4, y: Number.isFinite(b) ? plane.y(b) : plane.bottom - 4,
          kind, zero: false, name: report.genes[g], go: geneGo[g],
          text: () => `${cut(shownName(report.genes[g]), 60)}\nA ${report.effect.text(a)}, B ${report.effect.text(b)}\nhit of ${BOTH[kind]}`,
        };
        if (Number.isFinite(a) && Number.isFinite(b)) drawPair(ctx, mark, c);
        else drawEdge(ctx, mark, Number.isFinite(a), c);
        marks.push(mark);
      }
      placeNames(pen, plane, marks.filter(({ kind }) => kind === 0).reverse(), NAMED);
      return marks;
    },
  });
}

const PAIR_COLOURS = ["up", "down", "down", "grey"];

// Hits of both are discs; of one, triangles that point along its axis.
function drawPair(ctx, { x, y, kind }, c) {
  const r = 4;
  ctx.beginPath();
  ctx.fillStyle = c[PAIR_COLOURS[kind]];
  if (kind === 1 || kind === 2) {
    const [along, across] = kind === 1 ? [1, 0] : [0, -1];
    ctx.moveTo(x + along * r, y + across * r);
    ctx.lineTo(x - along * r - across * r, y - across * r + along * r);
    ctx.lineTo(x - along * r + across * r, y - across * r - along * r);
    ctx.closePath();
  } else ctx.arc(x, y, kind ? 2.2 : 3.6, 0, 2 * Math.PI);
  ctx.fill();
  ctx.lineWidth = 0.7;
  ctx.strokeStyle = c.paper;
  ctx.stroke();
}

// A line at the axis of the one whose value is known.
function drawEdge(ctx, { x, y, kind }, isFirst, c) {
  ctx.strokeStyle = c[PAIR_COLOURS[kind]];
  ctx.lineWidth = 1;
  stroke(ctx, isFirst ? [[x, y + 4], [x, y - 3]] : [[x - 4, y], [x + 3, y]]);
}
