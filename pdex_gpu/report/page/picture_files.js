// Pictures as files: a chart drawn anew, light, as SVG or in many pixels.

const FILE_WIDTH = 640;
const PIXELS = 3;

// What the charts use of a canvas's context, written as SVG.
class SvgPen {
  constructor(width, height) {
    Object.assign(this, {
      width, height, parts: [], path: "", dash: [], fonts: document.createElement("canvas").getContext("2d"),
      fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, lineJoin: "miter", globalAlpha: 1,
      font: FONT, textAlign: "start", textBaseline: "alphabetic", turned: null, saved: [],
    });
  }

  save() { this.saved.push(this.turned); }
  restore() { this.turned = this.saved.pop(); }
  translate(x, y) { this.turned = { x, y, angle: 0 }; }
  rotate(angle) { this.turned.angle = (angle * 180) / Math.PI; }
  setLineDash(dash) { this.dash = dash; }
  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${short4(x)} ${short4(y)}`; }
  lineTo(x, y) { this.path += `L${short4(x)} ${short4(y)}`; }
  closePath() { this.path += "Z"; }

  // Whole circles only.
  arc(x, y, r) {
    const [left, right, middle, radius] = [x - r, x + r, y, r].map(short4);
    this.path += `M${left} ${middle}A${radius} ${radius} 0 1 1 ${right} ${middle}A${radius} ${radius} 0 1 1 ${left} ${middle}Z`;
  }

  measureText(text) {
    this.fonts.font = this.font;
    return this.fonts.measureText(text);
  }

  fill() { this.add("path", { d: this.path, ...this.filled() }); }
  stroke() { this.add("path", { d: this.path, fill: "none", ...this.stroked() }); }

  fillRect(x, y, width, height) {
    this.add("rect", { x: short4(x), y: short4(y), width: short4(width), height: short4(height), ...this.filled() });
  }

  fillText(text, x, y) { this.text(text, x, y, this.filled()); }
  strokeText(text, x, y) { this.text(text, x, y, { fill: "none", ...this.stroked() }); }

  filled() {
    return { fill: this.fillStyle, ...(this.globalAlpha < 1 ? { "fill-opacity": short4(this.globalAlpha) } : {}) };
  }

  stroked() {
    return {
      stroke: this.strokeStyle, "stroke-width": this.lineWidth,
      ...(this.lineJoin === "miter" ? {} : { "stroke-linejoin": this.lineJoin }),
      ...(this.dash.length ? { "stroke-dasharray": this.dash.join(" ") } : {}),
    };
  }

  text(text, x, y, colours) {
    const [, weight, size] = /^(?:(\d+) )?(\d+)px/.exec(this.font);
    const down = { top: 0.8, middle: 0.35 }[this.textBaseline] || 0;
    const turned = this.turned && `translate(${short4(this.turned.x)} ${short4(this.turned.y)}) rotate(${this.turned.angle})`;
    this.add("text", {
      x: short4(x), y: short4(y + down * size), "font-size": size,
      "text-anchor": { center: "middle", right: "end" }[this.textAlign] || "start",
      ...(weight ? { "font-weight": weight } : {}), ...(turned ? { transform: turned } : {}), ...colours,
    }, text);
  }

  add(tag, properties, text = "") {
    const written = Object.entries(properties).map(([name, value]) => ` ${name}="${escaped(value)}"`).join("");
    this.parts.push(`<${tag}${written}${text ? `>${escaped(text)}</${tag}>` : "/>"}`);
  }

  file(paper) {
    const size = `width="${this.width}" height="${this.height}"`;
    return `<svg xmlns="${SVG}" ${size} viewBox="0 0 ${this.width} ${this.height}" font-family="sans-serif">\n`
      + `<rect ${size} fill="${paper}"/>\n${this.parts.join("\n")}\n</svg>\n`;
  }
}

// The name of the format, at which nothing is fetched.
const SVG = "http://www.w3.org/2000/svg";

const short4 = (value) => String(Number(value.toFixed(2)));

// Characters that XML has no place for are replaced.
const escaped = (text) => String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
  .replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

// The light colours, whatever the page has now.
function printColours() {
  const { classList } = document.documentElement;
  const printing = classList.contains("printing");
  classList.add("printing");
  const found = colours();
  classList.toggle("printing", printing);
  return found;
}

function svgOf(chart) {
  const width = FILE_WIDTH;
  const [height, ink] = [chart.heightAt(width), printColours()];
  const pen = new SvgPen(width, height);
  chart.paint({ ctx: pen, width, height, colours: ink });
  return new Blob([pen.file(ink.paper)], { type: "image/svg+xml" });
}

function pngOf(chart) {
  const width = FILE_WIDTH;
  const [height, ink] = [chart.heightAt(width), printColours()];
  const canvas = h("canvas", { width: width * PIXELS, height: height * PIXELS });
  const ctx = canvas.getContext("2d");
  ctx.scale(PIXELS, PIXELS);
  ctx.fillStyle = ink.paper;
  ctx.fillRect(0, 0, width, height);
  ctx.font = FONT;
  chart.paint({ ctx, width, height, colours: ink });
  return new Promise((done) => { canvas.toBlob(done, "image/png"); });
}

// Buttons that save a chart.
function pictureButtons(chart, what) {
  const button = (suffix, make) => h(
    "button",
    {
      type: "button", "aria-label": `Save ${what} as ${suffix.toUpperCase()}`,
      onclick: async () => download(fileName(chart.file, suffix), await make(chart)),
    },
    suffix.toUpperCase(),
  );
  return h("div", { class: "tools save" }, h("span", { class: "hint", "aria-hidden": "true" }, `Save ${what}`), button("svg", svgOf), button("png", pngOf));
}
