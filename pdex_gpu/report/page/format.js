// Numbers and names as people read them, and as files hold them.

const MISSING = "–";

const { format: grouped } = new Intl.NumberFormat("en-US");

const counted = (n, one, many) => `${grouped(n)} ${n === 1 ? one : many || `${one}s`}`;

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const sign = (text) => text.replace("-", "−");

const shownName = (name) => (name.trim() === "" ? "(no name)" : name);

function fixed(value, digits) {
  if (Number.isNaN(value)) return MISSING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const text = value.toFixed(digits);
  return sign(Number(text) === 0 ? (0).toFixed(digits) : text);
}

// Three digits; with an exponent where there would be many zeros.
function short(value) {
  if (Number.isNaN(value)) return MISSING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return sign(value.toExponential(2));
  if (size >= 99.95) return sign(grouped(Number(value.toFixed(size >= 1e4 ? 0 : 1))));
  return size === 0 ? "0" : sign(value.toPrecision(3));
}

// A number below 1 from its log10, which may be smaller than any number.
function fromLog10(log) {
  if (Number.isNaN(log)) return MISSING;
  if (log === -Infinity) return "0";
  if (log > -3) return String(Number((10 ** log).toPrecision(3)));
  let exponent = Math.floor(log);
  let digits = (10 ** (log - exponent)).toFixed(1);
  if (digits === "10.0") {
    digits = "1.0";
    exponent += 1;
  }
  return sign(`${digits}e${exponent}`);
}

// The shortest text that reads back to the same number in single precision.
function exact(value) {
  if (Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  for (let digits = 6; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

// A probability from its log10, with the digits that single precision of the logarithm gives; it may
// be smaller than any number.
function probability(log) {
  if (Number.isNaN(log)) return "";
  if (log === -Infinity) return "0";
  const digits = Math.max(1, Math.ceil(7 - Math.log10(Math.max(1, Math.abs(log)))));
  if (log > -300) return String(Number((10 ** log).toPrecision(digits)));
  let exponent = Math.floor(log);
  let mantissa = Number((10 ** (log - exponent)).toPrecision(digits));
  if (mantissa === 10) [mantissa, exponent] = [1, exponent + 1];
  return `${mantissa}e${exponent}`;
}

// Text is always quoted: separators, quotes and line breaks stand for themselves. Spreadsheets take
// text with certain first signs for a formula, quoted or not; numbers such as "-1" are harmless.
// `no_formula` in table.py is the same.
function quoted(value) {
  const text = String(value);
  const formula = /^([\t\r\n]|[\s"'\ufeff]*[=+\-@＝＋－＠])/.test(text) && !/^[+-]?\d+(\.\d+)?$/.test(text);
  return `"${formula ? "'" : ""}${text.replaceAll('"', '""')}"`;
}

// columns: [{name, value(row)}]. In parts, because a text can be too long for a browser.
function csvBlob(columns, rows) {
  const parts = [`${columns.map((column) => quoted(column.name)).join(",")}\n`];
  for (let start = 0; start < rows.length; start += 10000) {
    const lines = rows.slice(start, start + 10000).map((row) => columns.map((column) => column.value(row)).join(","));
    parts.push(`${lines.join("\n")}\n`);
  }
  return new Blob(parts, { type: "text/csv;charset=utf-8" });
}

function fileName(parts, suffix) {
  const text = parts.join("-").normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "_");
  return `${text.replace(/^[._-]+/, "").slice(0, 80) || "table"}.${suffix}`;
}

function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// Letters at most, the middle left out; never half of a letter.
function cut(text, limit) {
  const letters = Array.from(text.replace(/\s+/g, " "));
  if (letters.length <= limit) return letters.join("");
  const tail = Math.floor((limit - 1) / 3);
  return `${letters.slice(0, limit - 1 - tail).join("")}…${letters.slice(letters.length - tail).join("")}`;
}

// What the effect is called on axes and in sentences, at the head of a column, and within such a
// head; and how it is written.
function effectText({ column, is_ratio: isRatio }) {
  return isRatio
    ? { column, axis: "log₂ fold change", short: "log₂ fold", inner: "log₂ fold", text: (value) => fixed(value, 2) }
    : { column, axis: "mean difference", short: "Difference", inner: "difference", text: short };
}
