// The heat map: effects of the comparisons with the most hits on the genes that are hits in the most.

const MAP_COMPARISONS = 40;

class EffectMap {
  constructor(report, comparisonGo) {
    const body = byId("map-body");
    const genes = Array.from(report.arrays.map_genes);
    Object.assign(this, { report, comparisonGo, genes, shown: { order: [] } });
    if (!genes.length) {
      body.replaceChildren(h("p", {}, "There are no hits to show."));
      this.update = () => {};
      return;
    }
    this.limit = colourLimit(report.arrays.map_sizes);
    this.fill();
    this.chart = this.picture();
    const several = report.nComparisons > MAP_COMPARISONS;
    body.replaceChildren(
      h("p", { class: "hint" }, `The ${counted(genes.length, "gene")} that are hits in the most ${report.noun.many}, at an FDR of ${report.meta.fdr}`
        + `${several ? `, and the ${MAP_COMPARISONS} ${report.noun.many} with the most hits` : ""}. A dot marks a hit at the cut-offs; crossed out: not in the result.`),
      h("div", { class: "scroll", role: "region", "aria-label": "Heat map", tabindex: "0" }, this.chart.element),
      list("legend", [
        [h("span", { class: "down" }, `■ ${report.effect.text(-this.limit)}`)], ["□ 0"], [h("span", { class: "up" }, `■ ${report.effect.text(this.limit)}`)],
        [`${report.effect.axis}; values beyond have the colour of the end`],
      ]),
      pictureButtons(this.chart, "heat map"),
    );
  }

  // Comparisons with the most hits now, and which of their genes are hits.
  fill() {
    const { report, genes, shown } = this;
    shown.order = mostHits(report).slice(0, MAP_COMPARISONS);
    const column = new Map(genes.map((g, k) => [g, k]));
    shown.hits = shown.order.map((t) => new Set(
      report.rowsOfComparison(t).filter((i) => report.hit[i] && column.has(report.rows.gene[i])).map((i) => column.get(report.rows.gene[i])),
    ));
  }

  update() {
    this.fill();
    this.chart.update(this.label());
  }

  label() {
    const { report, genes, shown } = this;
    const n = shown.hits.reduce((sum, hits) => sum + hits.size, 0);
    return `Heat map of the ${report.effect.axis} of ${counted(genes.length, "gene")} in ${counted(shown.order.length, report.noun.one, report.noun.many)}: `
      + `${grouped(n)} of ${grouped(genes.length * shown.order.length)} are hits. Genes: ${genes.slice(0, 5).map((g) => report.genes[g]).join(", ")}${genes.length > 5 ? " and others" : ""}.`;
  }

  picture() {
    const { report, genes, shown, limit, comparisonGo } = this;
    const sizes = report.arrays.map_sizes;
    const heads = genes.map((g) => cut(shownName(report.genes[g]), 16));
    const [cell, head] = [15, Math.ceil(widest(heads)) + 12];
    return new Chart({
      label: this.label(),
      file: ["heatmap"],
      height: head + shown.order.length * cell + 6,
      draw(pen) {
        const { ctx, width, colours: c } = pen;
        const [up, down, paper] = ["up", "down", "paper"].map((name) => channels(c[name]));
        const names = shown.order.map((t) => cut(shownName(report.names[t]), 20));
        const left = Math.ceil(Math.max(...names.map((name) => ctx.measureText(name).width))) + 8;
        const step = Math.min(26, (width - left - 8) / genes.length);
        ctx.fillStyle = c.ink;
        ctx.textBaseline = "middle";
        genes.forEach((g, k) => {
          ctx.textAlign = "left";
          ctx.save();
          ctx.translate(left + (k + 0.5) * step, head - 4);
          ctx.rotate(-Math.PI / 2);
          if (step >= 10 || k % 2 === 0) ctx.fillText(heads[k], 0, 0);
          ctx.restore();
        });
        const marks = [];
        shown.order.forEach((t, row) => {
          const y = head + row * cell;
          ctx.textAlign = "right";
          ctx.fillStyle = c.ink;
          ctx.fillText(names[row], left - 5, y + cell / 2);
          genes.forEach((g, k) => {
            const value = sizes[t * genes.length + k];
            const x = left + k * step;
            if (Number.isNaN(value)) {
              ctx.strokeStyle = c.line;
              ctx.lineWidth = 1;
              stroke(ctx, [[x + 2, y + cell - 2], [x + step - 2, y + 2]]);
            } else {
              const share = Math.min(1, Math.abs(value) / limit);
              ctx.fillStyle = mixed(paper, value > 0 ? up : down, share);
              ctx.fillRect(x, y, step - 0.5, cell - 0.5);
              if (shown.hits[row].has(k)) {
                ctx.fillStyle = share > 0.55 ? c.paper : c.ink;
                ctx.beginPath();
                ctx.arc(x + step / 2, y + cell / 2, 1.7, 0, 2 * Math.PI);
                ctx.fill();
              }
            }
            marks.push({
              x: x + step / 2, y: y + cell / 2, reach: cell, go: comparisonGo[t],
              text: () => `${names[row]}, ${cut(shownName(report.genes[g]), 30)}\n${report.effect.axis} ${report.effect.text(value)}${shown.hits[row].has(k) ? "\na hit" : ""}`,
            });
          });
        });
        return marks;
      },
    });
  }
}

function widest(texts) {
  const ctx = h("canvas").getContext("2d");
  ctx.font = FONT;
  return Math.max(...texts.map((text) => ctx.measureText(text).width));
}

// The effect that has the full colour: 98 of 100 are smaller.
function colourLimit(sizes) {
  const known = sizes.filter((value) => Number.isFinite(value)).map(Math.abs).sort();
  return known.length ? known[Math.floor((known.length - 1) * 0.98)] || 1 : 1;
}

const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

const mixed = (from, to, share) => `rgb(${from.map((v, k) => Math.round(v + (to[k] - v) * share)).join(",")})`;
