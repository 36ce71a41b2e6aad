// A table of rows: sorted by any column, a page at a time, as CSV.

const PAGE = 25;

// The columns of files of a table's columns.
const filed = (columns) => columns.flatMap((column) => column.files || []);

// columns: [{title, key(i) to sort by, cell(i) text or node, files: [{name, value(i)}], text: true, first: largest
//            first, header: names the row}]
class Table {
  constructor({ caption, columns, rows, sorted, descending = false, file, empty, page = PAGE }) {
    Object.assign(this, { columns, file, empty, size: page });
    this.sorted = sorted;
    this.descending = descending;
    this.page = 0;
    this.buttons = columns.map((column, k) => h(
      "button",
      { type: "button", onclick: () => this.sortBy(k) },
      column.title,
      h("span", { class: "arrow", "aria-hidden": "true" }),
    ));
    this.heads = columns.map((column, k) => h(
      "th", { scope: "col", class: column.text ? "text" : null, title: column.hint }, this.buttons[k],
    ));
    this.body = h("tbody");
    this.state = h("span", { role: "status" });
    this.previous = h("button", { type: "button", onclick: () => this.turn(-1) }, "Previous");
    this.next = h("button", { type: "button", onclick: () => this.turn(1) }, "Next");
    this.pager = h("div", { class: "pager" }, this.previous, this.next, this.state);
    this.element = h(
      "div", {},
      h(
        "div", { class: "scroll", role: "region", "aria-label": `Table: ${caption}`, tabindex: "0" },
        h(
          "table", {},
          h("caption", {}, h("span", { class: "hidden" }, caption)),
          h("thead", {}, h("tr", {}, ...this.heads)),
          this.body,
        ),
      ),
      this.pager,
    );
    this.setRows(rows);
  }

  setRows(rows) {
    this.page = 0;
    this.replaceRows(rows);
  }

  // Other rows, or rows that say something else now: the page stays, if there is one.
  replaceRows(rows) {
    this.rows = rows.slice();
    this.page = Math.max(0, Math.min(this.page, Math.ceil(rows.length / this.size) - 1));
    this.sort();
  }

  sortBy(k) {
    this.descending = k === this.sorted ? !this.descending : Boolean(this.columns[k].first);
    this.sorted = k;
    this.page = 0;
    this.sort();
  }

  // What has no value stands last either way; equal ones keep the order they came in.
  sort() {
    const { key } = this.columns[this.sorted];
    const way = this.descending ? -1 : 1;
    const keyed = this.rows.map((row, i) => ({ row, i, key: key(row) }));
    const missing = (value) => typeof value === "number" && Number.isNaN(value);
    const words = new Intl.Collator("en", { numeric: true });
    keyed.sort((a, b) => {
      if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key) || a.i - b.i;
      const order = typeof a.key === "string" ? words.compare(a.key, b.key)
        : (a.key > b.key) - (a.key < b.key);
      return way * order || a.i - b.i;
    });
    this.rows = keyed.map((entry) => entry.row);
    this.columns.forEach((_, k) => {
      const chosen = k === this.sorted;
      if (chosen) this.heads[k].setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else this.heads[k].removeAttribute("aria-sort");
      this.buttons[k].lastChild.textContent = chosen ? (this.descending ? "↓" : "↑") : "";
    });
    this.show();
  }

  turn(by) {
    this.page += by;
    this.show();
    // A button that is switched off would drop the focus.
    const [used, other] = by > 0 ? [this.next, this.previous] : [this.previous, this.next];
    if (used.disabled) other.focus();
  }

  show() {
    const start = this.page * this.size;
    const end = Math.min(start + this.size, this.rows.length);
    const lines = this.rows.slice(start, end).map((row) => h(
      "tr", {},
      ...this.columns.map((column) => h(
        column.header ? "th" : "td",
        { class: column.text ? "text" : null, scope: column.header ? "row" : null },
        column.cell(row),
      )),
    ));
    if (!lines.length) lines.push(h("tr", {}, h("td", { class: "text", colspan: this.columns.length }, this.empty)));
    this.body.replaceChildren(...lines);
    this.previous.disabled = this.page === 0;
    this.next.disabled = end >= this.rows.length;
    const several = this.rows.length > this.size;
    this.previous.hidden = !several;
    this.next.hidden = !several;
    this.state.textContent = this.rows.length
      ? `Rows ${grouped(start + 1)} to ${grouped(end)} of ${grouped(this.rows.length)}` : "";
  }

  // more: what the file's name says beside the table's.
  saveButton(text, rows, more = []) {
    return h(
      "button", { type: "button", onclick: () => download(fileName([...this.file, ...more], "csv"), csvBlob(filed(this.columns), rows())) },
      text,
    );
  }
}
