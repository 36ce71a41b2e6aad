// From the data in the file to the page, and from the address to what is shown.

function searchEntries(report, comparisonGo, geneGo) {
  const comparisons = report.names.map((name, t) => ({
    kind: report.noun.one, name, identifier: null, go: comparisonGo[t], size: () => counted(report.hits(t), "hit"),
  }));
  const genes = report.genes.map((name, g) => ({
    kind: "gene", name, identifier: report.meta.identifiers && report.identifier(g), go: geneGo[g],
    size: () => counted(report.geneHits(g), "hit"),
  }));
  return [...comparisons, ...genes];
}

// "#target=NAME&nth=2" as its parts; null for other addresses.
function parsed(hash) {
  const found = /^#(target|gene)=(.*?)(?:&nth=(\d+))?$/.exec(hash);
  if (!found) return null;
  let name = found[2];
  try {
    name = decodeURIComponent(name);
  } catch {
    // A per cent sign that stands for itself.
  }
  return { kind: found[1], name, nth: Number(found[3] || 1) };
}

class Shown {
  constructor(report, order, comparisonGo, geneGo) {
    Object.assign(this, { report, order, comparisonGo, geneGo, charts: [], update: () => {}, genes: new Set() });
    this.box = byId("view");
    this.count = { target: numbered(report.names), gene: numbered(report.genes) };
    this.places = {
      target: new Map(comparisonGo.map((go, t) => [go, t])),
      gene: new Map(geneGo.map((go, g) => [go, g])),
    };
  }

  view(asked) {
    const { kind, name, nth } = asked;
    let k = this.places[kind].get(hashOf(kind, name, nth));
    if (k === undefined && kind === "gene" && this.report.meta.identifiers) {
      k = this.report.meta.identifiers.indexOf(name);
    }
    if (k === undefined || k < 0) {
      const close = [...this.names.matching(name, 3), ...this.names.close(name)];
      return missingView(this.report, kind, name, close.filter((entry, i) => close.indexOf(entry) === i));
    }
    const number = this.count[kind][k];
    return kind === "target"
      ? comparisonView(this.report, this.genes, k, number, this.geneGo)
      : geneView(this.report, this.genes, k, number, this.comparisonGo);
  }

  // Genes of a pasted list: the view names them in its choice of rows, and shows them.
  setList(genes) {
    this.genes = genes;
    this.show(false);
    const choice = byId("shown");
    if (!genes.size || !choice || !choice.querySelector("[value=list]")) return;
    choice.value = "list";
    choice.dispatchEvent(new Event("change"));
  }

  // Shows what the address asks for, or the comparison with the most hits.
  show(moved) {
    let asked = parsed(location.hash);
    if (!asked && location.hash && this.asked) { // the address of a part of the page
      if (moved) return;
      asked = this.asked;
    }
    if (!asked && this.order.length) {
      const t = this.order[0];
      asked = { kind: "target", name: this.report.names[t], nth: this.count.target[t] };
    }
    this.charts.forEach((chart) => chart.remove());
    this.charts = [];
    this.asked = asked;
    if (!asked) {
      this.box.replaceChildren(h("p", {}, "The result has no comparisons."));
      return;
    }
    const { charts, heading, nodes, update } = this.view(asked);
    Object.assign(this, { charts, update });
    const kind = asked.kind === "target" ? capital(this.report.noun.one) : "Gene";
    this.box.replaceChildren(h("p", { class: "kind" }, kind), heading, ...nodes);
    update();
    const typing = document.activeElement === byId("search");
    if (moved && typing) byId("search-state").textContent = `${kind} ${asked.name} is shown below.`;
    if (moved && !typing) {
      heading.focus({ preventScroll: true });
      byId("view").scrollIntoView({ block: "nearest" });
      heading.scrollIntoView({ block: "nearest" });
    }
  }
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old; use a version from 2023 or later");
  }
  const meta = JSON.parse(byId("meta").textContent);
  const report = new Report(meta, await readArrays());
  const targetNumbers = numbered(report.names);
  const geneNumbers = numbered(report.genes);
  const comparisonGo = report.names.map((name, t) => hashOf("target", name, targetNumbers[t]));
  const geneGo = report.genes.map((name, g) => hashOf("gene", name, geneNumbers[g]));
  const order = mostHits(report);
  const shown = new Shown(report, order, comparisonGo, geneGo);
  shown.names = new Names(searchEntries(report, comparisonGo, geneGo));
  byId("content").hidden = false;
  byId("state").hidden = true;
  fillHeader(report);
  fillNotes(report);
  const map = new EffectMap(report, comparisonGo);
  const pair = new Pair(report, order, geneGo);
  const hits = new Hits(report, comparisonGo, geneGo);
  fillPValues(report);
  fillCalibration(report);
  fillSettings(report);
  shown.show(false);
  new Search(shown.names);
  const genes = new GeneList(report, shown.names, shown, { comparison: comparisonGo, gene: geneGo });
  const near = () => {
    fillTiles(report);
    shown.update();
    hits.update();
  };
  const far = () => [genes, map, pair].forEach((part) => part.update());
  new Cutoffs(report, near, far);
  window.addEventListener("hashchange", () => shown.show(true));
  watchColours();
  drawAll();
  requestAnimationFrame(() => {
    performance.mark("pdex-report-ready");
    document.documentElement.dataset.ready = "true";
  });
}

start().catch((error) => {
  const state = byId("state");
  state.hidden = false;
  state.className = "problem";
  state.textContent = `This report cannot be shown: ${error.message}.`;
  document.documentElement.dataset.failed = "true";
});
