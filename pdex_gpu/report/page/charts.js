// The pictures: volcano, hits of comparisons, histogram of p-values, QQ plot.

// -log10 of the smallest number above 0: where p-values of 0 stand.
const EDGE = 323.3;
const NAMED = 12;

// shown: {points, least}, read whenever it is drawn. points: [{x, y, zero, direction, hit, name, text,
// go}], the strongest first; least: the smallest effect of a hit.
// behind: a grid of the rows that are not listed, or null.
function volcano({ shown, behind, xTitle, label, file }) {
  return new Chart({
    label,
    file,
    height: (width) => Math.round(Math.min(460, Math.max(300, width * 0.9))),
    draw(pen) {
      const drawn = shown.points.filter((p) => Number.isFinite(p.x) && !Number.isNaN(p.y));
      if (!drawn.length && !behind) {
        inWords(pen, `Nothing to draw: no p-values or no ${xTitle}s.`);
        return [];
      }
      let [low, high, top] = [0, 0, 1];
      for (const p of drawn) {
        low = Math.min(low, p.x);
        high = Math.max(high, p.x);
        top = Math.max(top, p.y);
      }
      if (behind) {
        low = Math.min(low, behind.left);
        high = Math.max(high, behind.right);
        top = Math.max(top, behind.top);
      }
      const room = (high - low) * 0.05 || 0.2;
      const plane = axes(pen, {
        x: [low - room, high + room],
        y: [0, top * 1.06],
        xTitle,
        yTitle: "−log₁₀ p-value",
      });
      const { ctx, colours: c } = pen;
      ctx.strokeStyle = c.grey;
      const lines = shown.least ? [-shown.least, shown.least] : [0];
      for (const x of lines.map(plane.x).filter((x) => x >= plane.left && x <= plane.right)) {
        stroke(ctx, [[x, plane.top], [x, plane.bottom]], [3, 4]);
      }
      if (behind) drawBehind(ctx, plane, behind, c);
      const marks = drawn.map((p) => ({ ...p, x: plane.x(p.x), y: plane.y(p.y) }));
      for (let i = marks.length - 1; i >= 0; i--) drawPoint(ctx, marks[i], c);
      placeNames(pen, plane, marks.filter((p) => p.hit), NAMED);
      return marks;
    },
  });
}

function drawBehind(ctx, plane, { left, right, top, shape, bins, counts }, c) {
  const [nx, ny] = shape;
  let most = 1;
  for (const n of counts) most = Math.max(most, n);
  const [dx, dy] = [(right - left) / nx, top / ny];
  ctx.fillStyle = c.cloud;
  bins.forEach((bin, i) => {
    const [column, row] = [bin % nx, Math.floor(bin / nx)];
    const [x0, x1] = [plane.x(left + column * dx), plane.x(left + (column + 1) * dx)];
    const [y0, y1] = [plane.y((row + 1) * dy), plane.y(row * dy)];
    ctx.globalAlpha = 0.16 + 0.64 * (Math.log1p(counts[i]) / Math.log1p(most));
    ctx.fillRect(x0, y0, Math.max(x1 - x0, 1), Math.max(y1 - y0, 1));
  });
  ctx.globalAlpha = 1;
}

// Hits up and down are triangles that point so; other rows are dots.
function drawPoint(ctx, { x, y, hit, direction, zero }, c) {
  const r = 4.5;
  ctx.beginPath();
  if (!hit || !direction) {
    ctx.fillStyle = hit ? c.ink : c.grey;
    ctx.arc(x, y, hit ? 3.2 : 2.4, 0, 2 * Math.PI);
  } else {
    const up = direction > 0 ? -1 : 1;
    ctx.fillStyle = up < 0 ? c.up : c.down;
    ctx.moveTo(x, y + up * r);
    ctx.lineTo(x + r, y - up * r * 0.75);
    ctx.lineTo(x - r, y - up * r * 0.75);
    ctx.closePath();
  }
  ctx.fill();
  ctx.lineWidth = 0.7;
  ctx.strokeStyle = c.paper;
  ctx.stroke();
  if (zero) {
    ctx.lineWidth = 1.4;
    ctx.strokeStyle = c.ink;
    ctx.beginPath();
    ctx.arc(x, y, 7, 0, 2 * Math.PI);
    ctx.stroke();
  }
}

const MOST_BARS = 40;

// shown: {items: [{name, up, down, level, go}]}, most hits first, read whenever it is drawn.
function hitChart(shown, label, noun) {
  return shown.items.length <= MOST_BARS ? hitBars(shown, label) : hitCurve(shown, label, noun);
}

const hitText = (item) => `${item.name}\n${grouped(item.up)} up, ${grouped(item.down)} down`
  + (item.level ? `, ${grouped(item.level)} neither` : "");

function hitBars(shown, label) {
  const step = 19;
  return new Chart({
    label,
    file: ["hits"],
    height: shown.items.length * step + 52,
    draw(pen) {
      const { items } = shown;
      const { ctx, width, height, colours: c } = pen;
      const names = items.map((item) => cut(item.name, width < 500 ? 14 : 30));
      const left = Math.ceil(Math.max(...names.map((n) => ctx.measureText(n).width))) + 10;
      const [right, bottom] = [width - 46, height - 42];
      const down = Math.max(...items.map((item) => item.down), 1);
      const up = Math.max(...items.map((item) => item.up), 1);
      // Room for the figure at the end of a bar on the left.
      const zero = left + 40 + ((right - left - 40) * down) / (down + up);
      const scale = (right - left - 40) / (down + up);
      ctx.textBaseline = "middle";
      const marks = items.map((item, i) => {
        const y = i * step + step / 2 + 4;
        ctx.textAlign = "right";
        ctx.fillStyle = c.ink;
        ctx.fillText(names[i], left - 6, y);
        ctx.fillStyle = c.down;
        ctx.fillRect(zero - item.down * scale, y - 6.5, item.down * scale, 13);
        if (item.down) ctx.fillText(grouped(item.down), zero - item.down * scale - 5, y + 0.5);
        ctx.textAlign = "left";
        ctx.fillStyle = c.up;
        ctx.fillRect(zero, y - 6.5, item.up * scale, 13);
        if (item.up) ctx.fillText(grouped(item.up), zero + item.up * scale + 5, y + 0.5);
        return { x: zero, y, reach: width, text: () => hitText(item), go: item.go };
      });
      ctx.strokeStyle = c.grey;
      ctx.lineWidth = 1;
      stroke(ctx, [[Math.round(zero) + 0.5, 2], [Math.round(zero) + 0.5, bottom]]);
      ctx.textBaseline = "top";
      ctx.textAlign = "right";
      ctx.fillStyle = c.down;
      ctx.fillText("▼ down", zero - 8, bottom + 8);
      ctx.textAlign = "left";
      ctx.fillStyle = c.up;
      ctx.fillText("▲ up", zero + 8, bottom + 8);
      return marks;
    },
  });
}

function hitCurve(shown, label, noun) {
  return new Chart({
    label,
    file: ["hits"],
    height: 300,
    draw(pen) {
      const { items } = shown;
      const { ctx, colours: c } = pen;
      const top = items.reduce((most, item) => Math.max(most, item.up), 1);
      const low = items.reduce((most, item) => Math.max(most, item.down), 1);
      const plane = axes(pen, {
        x: [0, items.length],
        y: [-low * 1.05, top * 1.05],
        xTitle: `${noun.many}, by number of hits`,
        yTitle: "hits (up above, down below)",
        yText: (v) => tickText(Math.abs(v)),
      });
      const width = plane.x(1) - plane.x(0);
      const columns = Math.max(1, Math.ceil(1 / width));
      // Where several comparisons share a column of pixels, their mean is shown.
      for (const [kind, way] of [["up", 1], ["down", -1]]) {
        ctx.fillStyle = c[kind];
        ctx.beginPath();
        ctx.moveTo(plane.left, plane.y(0));
        for (let i = 0; i < items.length; i += columns) {
          const some = items.slice(i, i + columns);
          const y = plane.y((way * some.reduce((sum, item) => sum + item[kind], 0)) / some.length);
          ctx.lineTo(plane.x(i), y);
          ctx.lineTo(plane.x(i + some.length), y);
        }
        ctx.lineTo(plane.right, plane.y(0));
        ctx.fill();
      }
      ctx.strokeStyle = c.grey;
      stroke(ctx, [[plane.left, plane.y(0)], [plane.right, plane.y(0)]]);
      return items.map((item, i) => ({
        x: plane.x(i + 0.5), y: null, reach: Math.max(width, 4), text: () => `${i + 1}. ${hitText(item)}`,
        go: item.go,
      }));
    },
  });
}

// Bars of equal width between 0 and 1, and levels as lines: [{at, dash}].
function histogram({ counts, levels, label, height = (width) => Math.round(Math.min(360, Math.max(260, width * 0.7))), yTitle = "tests" }) {
  return new Chart({
    label,
    height,
    draw(pen) {
      const { ctx, colours: c } = pen;
      const total = counts.reduce((sum, n) => sum + n, 0);
      if (!total) {
        inWords(pen, "There are no p-values to draw.");
        return [];
      }
      const most = Math.max(...counts, ...levels.map((level) => level.at));
      const plane = axes(pen, { x: [0, 1], y: [0, most * 1.06], xTitle: "p-value", yTitle, yText: inUnits(most) });
      const step = 1 / counts.length;
      ctx.fillStyle = c.bar;
      const marks = counts.map((n, i) => {
        const [x0, x1] = [plane.x(i * step), plane.x((i + 1) * step)];
        ctx.fillRect(x0 + 0.5, plane.y(n), Math.max(x1 - x0 - 1, 1), plane.bottom - plane.y(n));
        const range = `${Number((i * step).toFixed(4))} to ${Number(((i + 1) * step).toFixed(4))}`;
        return { x: (x0 + x1) / 2, y: null, reach: (x1 - x0) / 2 + 1, text: () => `p ${range}\n${counted(n, "test")}` };
      });
      ctx.strokeStyle = c.ink;
      ctx.lineWidth = 2;
      for (const { at, dash } of levels) {
        stroke(ctx, [[plane.left, plane.y(at)], [plane.right, plane.y(at)]], dash || []);
      }
      return marks;
    },
  });
}

// Writes numbers up to the largest, all in the same unit.
function inUnits(most) {
  const [unit, size] = most >= 1e6 ? [" M", 1e6] : most >= 1e4 ? [" k", 1e3] : ["", 1];
  return (n) => (n === 0 ? "0" : `${grouped(Number((n / size).toPrecision(3)))}${unit}`);
}

// Observed against expected -log10 p-values, with the band of independent uniform ones.
function quantilePlot({ expected, observed, low, high, label }) {
  return new Chart({
    label,
    height: (width) => Math.round(Math.min(360, Math.max(260, width * 0.7))),
    draw(pen) {
      const { ctx, colours: c } = pen;
      if (!expected.length) {
        inWords(pen, "There are no p-values to draw.");
        return [];
      }
      const right = Math.max(...expected, 0.1) * 1.04;
      const top = Math.max(...observed, ...high, 0.1) * 1.04;
      const plane = axes(pen, {
        x: [0, right], y: [0, top],
        xTitle: "expected −log₁₀ p-value", yTitle: "observed −log₁₀ p-value",
      });
      ctx.beginPath();
      expected.forEach((v, i) => ctx[i ? "lineTo" : "moveTo"](plane.x(v), plane.y(high[i])));
      for (let i = expected.length - 1; i >= 0; i--) ctx.lineTo(plane.x(expected[i]), plane.y(low[i]));
      ctx.fillStyle = c.grey;
      ctx.globalAlpha = 0.3;
      ctx.fill();
      ctx.globalAlpha = 1;
      ctx.strokeStyle = c.ink;
      ctx.lineWidth = 1;
      const end = Math.min(right, top);
      stroke(ctx, [[plane.x(0), plane.y(0)], [plane.x(end), plane.y(end)]], [5, 4]);
      ctx.fillStyle = c.down;
      expected.forEach((v, i) => {
        ctx.beginPath();
        ctx.arc(plane.x(v), plane.y(observed[i]), 2.6, 0, 2 * Math.PI);
        ctx.fill();
      });
      return [];
    },
  });
}
