// Finding a comparison or a gene by a part of its name or identifier, and names close to one that is
// not there.

const MOST_OPTIONS = 12;

class Names {
  // entries: [{kind, name, identifier or null, size, go}]
  constructor(entries) {
    this.entries = entries;
    this.lower = entries.map((entry) => entry.name.toLowerCase());
    this.identifiers = entries.map((entry) => (entry.identifier || "").toLowerCase());
  }

  // Names that hold the text: the same, then those that begin with it, then the rest.
  matching(text, most = MOST_OPTIONS) {
    const asked = text.trim().toLowerCase();
    const ranks = [[], [], []];
    for (let i = 0; i < this.lower.length && ranks[0].length < most; i++) {
      const rank = Math.min(rankOf(this.lower[i], asked), rankOf(this.identifiers[i], asked));
      if (rank === Infinity) continue;
      if (ranks[rank].length < most) ranks[rank].push(this.entries[i]);
    }
    return ranks.flat().slice(0, most);
  }

  // Names within few letters of the text, the closest first.
  close(text, most = 5, test = () => true) {
    const asked = text.trim().toLowerCase().slice(0, 60);
    const limit = Math.max(1, Math.floor(asked.length * 0.4));
    const found = [];
    const within = (name) => (
      Math.abs(name.length - asked.length) > limit ? Infinity : distance(asked, name, limit)
    );
    this.lower.forEach((name, i) => {
      if (!test(this.entries[i])) return;
      const identifier = this.identifiers[i];
      const far = Math.min(within(name), identifier ? within(identifier) : Infinity);
      if (far <= limit) found.push([far, i]);
    });
    found.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return found.slice(0, most).map(([, i]) => this.entries[i]);
  }
}

// 0 the same, 1 begins with what is asked, 2 holds it; Infinity does not.
function rankOf(name, asked) {
  const at = name.indexOf(asked);
  if (at < 0) return Infinity;
  return at > 0 ? 2 : name.length > asked.length ? 1 : 0;
}

// Letters to insert, remove or replace, and neighbours to swap (optimal string alignment); above the
// limit, any number above it. Rows are kept between calls: thousands of names are compared at a time.
let [earlierRow, beforeRow, thisRow] = [0, 1, 2].map(() => new Uint16Array(64));

function distance(a, b, limit) {
  const n = b.length;
  if (n >= thisRow.length) [earlierRow, beforeRow, thisRow] = [0, 1, 2].map(() => new Uint16Array(2 * n + 1));
  let [earlier, before, row] = [earlierRow, beforeRow, thisRow];
  let leastBefore = 0;
  for (let j = 0; j <= n; j++) before[j] = j;
  for (let i = 1; i <= a.length; i++) {
    const letter = a.charCodeAt(i - 1);
    const lastLetter = i > 1 ? a.charCodeAt(i - 2) : -1;
    row[0] = i;
    let least = i;
    for (let j = 1; j <= n; j++) {
      const other = b.charCodeAt(j - 1);
      let far = before[j - 1] + (letter === other ? 0 : 1);
      if (before[j] + 1 < far) far = before[j] + 1;
      if (row[j - 1] + 1 < far) far = row[j - 1] + 1;
      if (j > 1 && lastLetter === other && letter === b.charCodeAt(j - 2) && earlier[j - 2] + 1 < far) {
        far = earlier[j - 2] + 1;
      }
      row[j] = far;
      if (far < least) least = far;
    }
    // A swap reaches back two rows.
    if (least > limit && leastBefore >= limit) return limit + 1;
    leastBefore = least;
    const spare = earlier;
    earlier = before;
    before = row;
    row = spare;
  }
  return before[n];
}

// The combobox: arrow keys choose, Enter shows, Escape closes and then clears.
class Search {
  constructor(names) {
    this.names = names;
    this.input = byId("search");
    this.box = byId("options");
    this.note = byId("options-note");
    this.list = byId("options-list");
    this.state = byId("search-state");
    this.found = [];
    this.active = -1;
    this.input.addEventListener("input", () => this.update());
    this.input.addEventListener("focus", () => this.input.select());
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.key(event));
  }

  update() {
    const text = this.input.value;
    if (!text.trim()) {
      this.close();
      return;
    }
    this.found = this.names.matching(text);
    this.active = this.found.length ? 0 : -1;
    let note = null;
    if (!this.found.length) {
      this.found = this.names.close(text);
      note = `No name contains “${cut(text, 40)}”. ${this.found.length ? "Similar names:" : "There are no similar names."}`;
    }
    const options = this.found.map((entry, k) => h(
      "li",
      {
        id: `option-${k}`, role: "option", "aria-selected": "false",
        onpointerdown: (event) => event.preventDefault(),
        onclick: () => this.choose(k),
      },
      nameOf(entry.name),
      h("span", { class: "kind" }, entry.kind, entry.identifier ? ` ${cut(entry.identifier, 30)}` : null),
      h("span", { class: "size" }, entry.size()),
    ));
    this.note.textContent = note;
    this.note.hidden = !note;
    this.list.replaceChildren(...options);
    this.list.hidden = !options.length;
    this.box.hidden = false;
    this.input.setAttribute("aria-expanded", String(options.length > 0));
    this.mark();
    this.state.textContent = note || counted(this.found.length, "match", "matches");
  }

  mark() {
    this.found.forEach((_, k) => {
      byId(`option-${k}`).setAttribute("aria-selected", String(k === this.active));
    });
    if (this.active < 0) this.input.removeAttribute("aria-activedescendant");
    else {
      this.input.setAttribute("aria-activedescendant", `option-${this.active}`);
      byId(`option-${this.active}`).scrollIntoView({ block: "nearest" });
    }
  }

  close() {
    this.box.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  choose(k) {
    const entry = this.found[k];
    this.input.value = entry.name;
    this.close();
    location.hash = entry.go;
  }

  key(event) {
    const open = !this.box.hidden;
    const n = this.found.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) this.update();
      else if (n) {
        const by = event.key === "ArrowDown" ? 1 : -1;
        this.active = this.active < 0 ? (by > 0 ? 0 : n - 1) : (this.active + by + n) % n;
        this.mark();
      }
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && this.active >= 0) this.choose(this.active);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (open) this.close();
      else this.input.value = "";
    }
  }
}
