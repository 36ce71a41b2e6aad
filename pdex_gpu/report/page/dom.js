// Elements with text: labels become text nodes, never markup.

function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const byId = (id) => document.getElementById(id);

const nameOf = (text) => h("bdi", { class: "name" }, shownName(text));

// The n-th of those with the same name, from 1, for names that repeat.
function numbered(names) {
  const seen = new Map();
  return names.map((name) => {
    const n = (seen.get(name) || 0) + 1;
    seen.set(name, n);
    return n;
  });
}

function hashOf(kind, name, n) {
  return `#${kind}=${encodeURIComponent(name)}${n > 1 ? `&nth=${n}` : ""}`;
}

// items: of a list, each an array of children; empty ones are left out.
function setItems(element, items) {
  element.replaceChildren(...items.filter(Boolean).map((item) => h("li", {}, ...item)));
}

function list(className, items) {
  const element = h("ul", { class: className });
  setItems(element, items);
  return element;
}
