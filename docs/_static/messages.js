// Troubleshooting: shows the messages that contain what was typed, and opens the lists they are in.
document.addEventListener("DOMContentLoaded", () => {
  const field = document.getElementById("message-filter");
  if (!field) return;
  const count = document.getElementById("message-count");
  const lists = document.getElementById("message-lists");
  const topics = [...field.closest("section").querySelectorAll(":scope > section")];
  const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
  const parts = [...document.querySelectorAll("details.message")].map((node) => ({
    node,
    text: plain(node.textContent),
    items: [...node.querySelectorAll("li")].map((item) => [item, plain(item.textContent)]),
  }));
  field.addEventListener("input", () => {
    const words = plain(field.value).split(" ").filter(Boolean);
    const matches = (text) => words.every((word) => text.includes(word));
    let explained = 0;
    let listed = 0;
    for (const { node, text, items } of parts) {
      let shown = 0;
      for (const [item, itemText] of items) {
        item.hidden = !matches(itemText);
        shown += !item.hidden;
      }
      listed += shown;
      if (!items.length) {
        shown = Number(matches(text));
        explained += shown;
      }
      node.hidden = !shown;
      node.open = words.length > 0 && shown > 0;
    }
    for (const topic of topics) topic.hidden = !topic.querySelector("details:not([hidden])");
    lists.open = words.length > 0;
    count.textContent = words.length ? `${explained} explained here, ${listed} in the list of all messages` : "";
  });
});
