// A list of genes that someone pastes: the rows of those genes, and what was not found.

// Names in a text: separated by lines, tabs, commas and semicolons; by spaces where that finds more.
function namesIn(text, knows) {
  const apart = (part, by) => part.split(by).map((name) => name.trim().replace(/^["']+|["']+$/g, "")).filter(Boolean);
  const names = apart(text, /[\n\r\t,;]+/).flatMap((part) => (knows(part) ? [part] : apart(part, /\s+/)));
  return [...new Set(names)];
}

// Genes by what people call them, whatever the case: name, symbol or identifier.
class GeneFinder {
  constructor(report) {
    this.places = new Map();
    const { genes, meta } = report;
    const add = (name, g) => {
      const key = name.toLowerCase();
      const found = this.places.get(key);
      if (!found) this.places.set(key, [g]);
      else if (!found.includes(g)) found.push(g);
    };
    genes.forEach((name, g) => {
      add(name, g);
      if (meta.symbols) add(meta.symbols[g], g);
      if (meta.identifiers) add(meta.identifiers[g], g);
    });
  }

  find(name) {
    return this.places.get(name.toLowerCase()) || [];
  }
}

class GeneList {
  // names: of the search, for close ones. shown: the view, which can be limited to the list.
  constructor(report, names, shown, go) {
    Object.assign(this, { report, names, shown, go, finder: null });
    this.input = h("textarea", {
      id: "genes-input", rows: 4, spellcheck: "false", autocapitalize: "off", "aria-describedby": "genes-help genes-state",
    });
    this.state = h("div", { id: "genes-state", role: "status" });
    this.result = h("div", {});
    byId("genes-body").replaceChildren(
      h("label", { for: "genes-input" }, "Genes, by name", report.meta.identifiers ? " or identifier" : null),
      this.input,
      h("p", { id: "genes-help", class: "hint" }, "One per line, or separated by commas, semicolons, tabs or spaces."),
      h(
        "div", { class: "tools" },
        h("button", { type: "button", onclick: () => this.show() }, "Show these genes"),
        h("button", { type: "button", onclick: () => this.clear() }, "Clear"),
      ),
      this.state, this.result,
    );
  }

  clear() {
    this.input.value = "";
    this.show();
    this.input.focus();
  }

  show() {
    this.finder = this.finder || new GeneFinder(this.report);
    const asked = namesIn(this.input.value, (name) => this.finder.find(name).length > 0);
    const genes = new Set(asked.flatMap((name) => this.finder.find(name)));
    const unknown = asked.filter((name) => !this.finder.find(name).length);
    this.tell(asked, genes, unknown);
    this.fill(genes);
    this.shown.setList(genes);
  }

  tell(asked, genes, unknown) {
    if (!asked.length) {
      this.state.replaceChildren();
      return;
    }
    const found = asked.length - unknown.length;
    const many = genes.size === found ? "" : ` (${counted(genes.size, "gene")})`;
    const some = unknown.slice(0, MOST_UNKNOWN);
    const rest = unknown.length - some.length;
    this.state.replaceChildren(
      h("p", {}, `${grouped(found)} of ${counted(asked.length, "name")} found${many}.`),
      unknown.length ? list("unknown", [
        ...some.map((name) => this.unknown(name)), rest ? [`and ${grouped(rest)} others that were not found`] : null,
      ]) : "",
    );
  }

  unknown(name) {
    const close = this.names.close(name, 3, (entry) => entry.kind === "gene");
    const links = close.flatMap((entry, i) => [i ? ", " : "", h("a", { href: entry.go }, nameOf(entry.name))]);
    return [nameOf(cut(name, 60)), " was not found.", ...(close.length ? [" Similar: ", ...links] : [])];
  }

  fill(genes) {
    this.table = null;
    if (!genes.size) {
      this.result.replaceChildren();
      return;
    }
    const { report, go } = this;
    const rows = byStrength(report, [...genes].flatMap((g) => report.rowsOfGene(g)));
    const total = [...genes].reduce((sum, g) => sum + report.arrays.gene_rows[g], 0);
    const [comparison, ...others] = rowColumns(report, comparisonColumn(report, go.comparison));
    const gene = { ...geneColumn(report, go.gene), text: true };
    this.rows = rows;
    this.table = new Table({
      caption: `Genes of the list over ${report.noun.many}`, columns: [comparison, gene, ...others], rows, sorted: 4,
      file: ["genes"], empty: `These genes have no rows on this page: they are no hits, and not among the strongest of any ${report.noun.one}.`,
    });
    this.result.replaceChildren(
      h("p", { class: "hint" }, `${grouped(rows.length)} of ${counted(total, "row")} of these genes are on this page: hits, and the strongest other rows of each ${report.noun.one}.`),
      h("div", { class: "tools" }, h("span", { class: "grow" }), this.table.saveButton("Save table as CSV", () => this.table.rows)),
      this.table.element,
    );
  }

  update() {
    if (this.table) this.table.replaceRows(this.rows);
  }
}

const MOST_UNKNOWN = 20;
