// Finding a perturbation or a gene by a part of its name, and names close to one that is not there.

const MOST_OPTIONS = 12;

class Names {
  // entries: [{kind, name, size, go}]
  constructor(entries) {
    this.entries = entries;
    this.lower = entries.map((entry) => entry.name.toLowerCase());
  }

  // Names that hold the text: the same, then those that begin with it, then the rest.
  matching(text, most = MOST_OPTIONS) {
    const asked = text.trim().toLowerCase();
    const ranks = [[], [], []];
    for (let i = 0; i < this.lower.length && ranks[0].length < most; i++) {
      const at = this.lower[i].indexOf(asked);
      if (at < 0) continue;
      const rank = at > 0 ? 2 : this.lower[i].length > asked.length ? 1 : 0;
      if (ranks[rank].length < most) ranks[rank].push(this.entries[i]);
    }
    return ranks.flat().slice(0, most);
  }

  // Names within few letters of the text, the closest first.
  close(text, most = 5) {
    const asked = text.trim().toLowerCase().slice(0, 60);
    const limit = Math.max(1, Math.floor(asked.length * 0.4));
    const found = [];
    this.lower.forEach((name, i) => {
      if (Math.abs(name.length - asked.length) > limit) return;
      const far = distance(asked, name, limit);
      if (far <= limit) found.push([far, i]);
    });
    found.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return found.slice(0, most).map(([, i]) => this.entries[i]);
  }
}

// Letters to insert, remove or replace; above the limit, any number above it.
function distance(a, b, limit) {
  let before = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    let least = i;
    for (let j = 1; j <= b.length; j++) {
      const replaced = before[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(replaced, before[j] + 1, row[j - 1] + 1);
      if (row[j] < least) least = row[j];
    }
    if (least > limit) return limit + 1;
    before = row;
  }
  return before[b.length];
}

// The combobox: arrow keys choose, Enter shows, Escape closes and then clears.
class Search {
  constructor(names) {
    this.names = names;
    this.input = byId("search");
    this.box = byId("options");
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
      nameOf(entry.name), h("span", { class: "kind" }, entry.kind), h("span", { class: "size" }, entry.size()),
    ));
    this.box.replaceChildren(
      ...(note ? [h("li", { class: "note", role: "presentation" }, note)] : []), ...options,
    );
    this.box.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
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
