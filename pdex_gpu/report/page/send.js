// A list of hits: copied, or sent to a service when someone clicks, and not before.

// Enrichr takes a form, to which the page's policy allows this address only. STRING takes an address,
// which has room for so many names.
const SERVICES = [
  {
    name: "Enrichr", host: "maayanlab.cloud", most: 10000,
    open: (names, description) => postInNewWindow(
      "https://maayanlab.cloud/Enrichr/enrich", { list: names.join("\n"), description },
    ),
  },
  {
    name: "STRING", host: "string-db.org", most: 400,
    open: (names) => openInNewWindow(
      `https://string-db.org/cgi/network?identifiers=${names.map(encodeURIComponent).join("%0d")}`,
    ),
  },
];

function openInNewWindow(href) {
  h("a", { href, target: "_blank", rel: "noopener noreferrer" }).click();
}

function postInNewWindow(action, fields) {
  const form = h("form", {
    method: "post", action, enctype: "multipart/form-data", target: "_blank", rel: "noopener noreferrer", hidden: true,
  });
  for (const [name, value] of Object.entries(fields)) {
    const field = h("textarea", { name });
    field.value = value;
    form.append(field);
  }
  document.body.append(form);
  form.submit();
  form.remove();
}

class HitList {
  // names(): of the hits that are shown. what: what they are called. services: where they can be sent.
  constructor({ names, what, description, services }) {
    Object.assign(this, { names, what, description });
    this.copyButton = h("button", { type: "button", onclick: () => this.copy() });
    this.sendButtons = services.map((service) => h(
      "button",
      {
        type: "button", title: `Opens a new window and sends the names to ${service.host}`,
        onclick: () => this.send(service),
      },
      `${service.name} ↗`,
    ));
    this.state = h("span", { class: "hint", role: "status" });
    this.element = h(
      "div", { class: "tools send" }, this.copyButton,
      services.length ? h("span", { class: "hint" }, "Send them to") : null, ...this.sendButtons, this.state,
    );
  }

  update() {
    const n = this.names().length;
    this.copyButton.textContent = `Copy ${counted(n, "hit")}`;
    for (const button of [this.copyButton, ...this.sendButtons]) button.disabled = n === 0;
    this.state.textContent = "";
  }

  async copy() {
    const names = this.names();
    const done = await copied(names.join("\n"));
    this.state.textContent = done
      ? `${counted(names.length, this.what.one, this.what.many)} copied, one per line.`
      : "The browser does not allow copying. Save the table instead.";
  }

  send({ name, most, open }) {
    const all = this.names();
    const names = all.slice(0, most);
    open(names, this.description);
    const some = all.length > most ? `The ${grouped(most)} strongest of ` : "";
    this.state.textContent = `${some}${counted(all.length, this.what.one, this.what.many)} sent to ${name} in a new window.`;
  }
}

// Whether the text is on the clipboard now.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedByCommand(text);
  }
}

// Where the page may not write to the clipboard by itself, a selection can be copied.
function copiedByCommand(text) {
  const focused = document.activeElement;
  const field = h("textarea", { class: "hidden", "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (focused) focused.focus();
  return done;
}
