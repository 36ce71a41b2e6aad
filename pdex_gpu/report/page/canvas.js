// A picture on a canvas: sharp on any screen, drawn anew for width, dark mode and print.

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const pictures = new Set();

function colours() {
  const style = getComputedStyle(document.documentElement);
  const found = {};
  for (const name of ["paper", "ink", "muted", "line", "up", "down", "grey", "cloud", "bar"]) {
    found[name] = style.getPropertyValue(`--${name}`).trim();
  }
  return found;
}

class Chart {
  // height: pixels, or a function of the width. label: what a reader who does not see it is told.
  // draw(pen) paints, and may return marks for the pointer: [{x, y, text(), go}]. Thousands of texts
  // would take long to make at every cut-off.
  // file: parts of the name under which it is saved.
  constructor({ height, label, draw, file = ["chart"] }) {
    this.height = height;
    this.file = file;
    this.paint = draw;
    this.marks = [];
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.tip = h("div", { class: "tip", hidden: true });
    this.element = h("div", { class: "chart" }, this.canvas, this.tip);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => {
      const mark = this.nearest(event);
      if (mark && mark.go) location.hash = mark.go;
    });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
    pictures.add(this);
  }

  // What it shows has changed.
  update(label) {
    this.canvas.setAttribute("aria-label", label);
    this.tip.hidden = true;
    this.draw(true);
  }

  remove() {
    this.observer.disconnect();
    pictures.delete(this);
  }

  draw(always = false) {
    const width = Math.floor(this.element.clientWidth);
    const scale = window.devicePixelRatio || 1;
    if (!width || (!always && width === this.width && scale === this.scale)) return;
    const height = this.heightAt(width);
    Object.assign(this, { width, scale });
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.height = `${height}px`;
    const ctx = this.canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    ctx.font = FONT;
    this.marks = this.paint({ ctx, width, height, colours: colours() }) || [];
  }

  heightAt(width) {
    return typeof this.height === "function" ? this.height(width) : this.height;
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, found] = [Infinity, null];
    for (const mark of this.marks) {
      const reach = mark.reach || 10;
      const [dx, dy] = [mark.x - x, mark.y === null ? 0 : mark.y - y];
      const far = dx * dx + dy * dy;
      if (far < best && far <= reach * reach) [best, found] = [far, mark];
    }
    return found;
  }

  point(event) {
    const mark = event && this.nearest(event);
    this.canvas.style.cursor = mark && mark.go ? "pointer" : "";
    this.tip.hidden = !mark;
    if (!mark) return;
    this.tip.textContent = mark.text();
    const box = this.canvas.getBoundingClientRect();
    const y = mark.y === null ? event.clientY - box.top : mark.y;
    const left = Math.max(0, Math.min(mark.x + 12, this.width - this.tip.offsetWidth));
    const above = y - this.tip.offsetHeight - 10;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${above < 0 ? y + 14 : above}px`;
  }
}

function drawAll() {
  for (const picture of pictures) picture.draw(true);
}

function watchColours() {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const print = (on) => {
    document.documentElement.classList.toggle("printing", on);
    drawAll();
  };
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
}

// Round numbers that part a range into about n steps.
function ticks(low, high, n) {
  const rough = (high - low) / Math.max(1, n);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * unit).find((k) => k >= rough) || 10 * unit;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) {
    found.push(Number((k * step).toPrecision(12)));
  }
  return found;
}

const tickText = (value) => sign(Math.abs(value) >= 1e3 ? grouped(value) : String(value));

// Axes with ticks and titles; returns the plane: x(v) and y(v) in pixels, and its edges.
function axes(pen, { x, y, xTitle, yTitle, yText = tickText, xTicks = true, lines = true }) {
  const { ctx, width, height, colours: c } = pen;
  const yTicks = ticks(y[0], y[1], Math.max(2, (height - 60) / 48));
  const widest = Math.max(...yTicks.map((v) => ctx.measureText(yText(v)).width), 8);
  const left = Math.ceil(widest) + (yTitle ? 32 : 14);
  const [right, top, bottom] = [width - 20, 10, height - (xTitle ? 42 : 26)];
  const plane = {
    left, right, top, bottom,
    x: (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left),
    y: (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top),
  };
  ctx.lineWidth = 1;
  ctx.strokeStyle = c.line;
  ctx.fillStyle = c.muted;
  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  for (const v of yTicks) {
    const at = Math.round(plane.y(v)) + 0.5;
    if (lines) stroke(ctx, [[left, at], [right, at]]);
    ctx.fillText(yText(v), left - 7, at);
  }
  ctx.textBaseline = "top";
  ctx.textAlign = "center";
  for (const v of xTicks ? ticks(x[0], x[1], Math.max(2, (right - left) / 70)) : []) {
    const at = Math.round(plane.x(v)) + 0.5;
    stroke(ctx, [[at, bottom], [at, bottom + 4]]);
    ctx.fillText(tickText(v), at, bottom + 7);
  }
  ctx.strokeStyle = c.grey;
  stroke(ctx, [[left, bottom + 0.5], [right, bottom + 0.5]]);
  if (xTitle) ctx.fillText(xTitle, (left + right) / 2, bottom + 25);
  if (yTitle) {
    ctx.save();
    ctx.translate(3, (top + bottom) / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(yTitle, 0, 0);
    ctx.restore();
  }
  return plane;
}

function stroke(ctx, points, dash = []) {
  ctx.setLineDash(dash);
  ctx.beginPath();
  points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.stroke();
  ctx.setLineDash([]);
}

function inWords(pen, text) {
  const { ctx, width, height, colours: c } = pen;
  ctx.fillStyle = c.muted;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(text, width / 2, height / 2);
}

// Names beside points, none over another: those that find no place are left out.
function placeNames(pen, plane, points, most) {
  const { ctx, colours: c } = pen;
  const taken = points.map((p) => [p.x - 5, p.y - 5, p.x + 5, p.y + 5]);
  const apart = 5;
  const free = (box) => box[0] >= plane.left && box[2] <= plane.right + 8 && box[1] >= 0
    && box[3] <= plane.bottom
    && taken.every((t) => box[2] < t[0] || box[0] > t[2] || box[3] < t[1] || box[1] > t[3]);
  ctx.font = `600 ${FONT}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  let n = 0;
  for (const p of points) {
    if (n >= most) break;
    const text = cut(p.name, 18);
    const w = ctx.measureText(text).width;
    const far = p.zero ? 12 : 8; // beyond the ring
    const spots = [
      [p.x + far, p.y], [p.x - far - w, p.y], [p.x - w / 2, p.y - far - 5], [p.x - w / 2, p.y + far + 5],
    ];
    const spot = spots.find(([x, y]) => free([x, y - 7, x + w, y + 7]));
    if (!spot) continue;
    taken.push([spot[0] - apart, spot[1] - 7, spot[0] + w + apart, spot[1] + 7]);
    ctx.lineWidth = 3;
    ctx.lineJoin = "round";
    ctx.strokeStyle = c.paper;
    ctx.strokeText(text, ...spot);
    ctx.fillStyle = c.ink;
    ctx.fillText(text, ...spot);
    n++;
  }
  ctx.font = FONT;
}
