// The cut-offs of FDR and effect: two numbers and two sliders that change what is a hit at once.

const LEAST_LOG_FDR = -20;

// Numbers that people enter: at most three digits of what a slider gives.
const brief = (value) => String(Number(value.toPrecision(3)));

class Cutoffs {
  // Called after the report has new cut-offs: near() once a frame; far(), for what is probably out of
  // sight, when that is on the screen.
  constructor(report, near, far) {
    Object.assign(this, { report, near, far, waiting: false, timer: 0 });
    const { meta, effect } = report;
    this.number = {
      fdr: this.numberInput("fdr", "cutoffs-help cutoffs-state", meta.fdr),
      size: this.numberInput("size", "cutoffs-state", null),
    };
    this.range = {
      fdr: this.slider("fdr", "FDR, logarithmic", LEAST_LOG_FDR, Math.log10(meta.fdr), 0.01),
      size: this.slider("size", `least |${effect.axis}|`, 0, this.largest(), meta.effect.is_ratio ? 0.05 : "any"),
    };
    this.state = h("span", { id: "cutoffs-state", role: "status" });
    this.reset = h("button", { type: "button", onclick: () => this.choose(meta.fdr, 0) }, "Reset");
    byId("cutoffs").replaceChildren(
      h("span", { id: "cutoffs-title", class: "head" }, "Cut-offs"),
      h("span", { class: "field" }, h("label", { for: "cutoff-fdr" }, "FDR ≤"), this.number.fdr, this.range.fdr),
      h("span", { class: "field" }, h("label", { for: "cutoff-size" }, `|${effect.axis}| ≥`), this.number.size, this.range.size),
      this.reset,
      this.state,
      h("span", { id: "cutoffs-help", class: "hint" }, this.help()),
    );
    this.reset.disabled = true;
    for (const kind of ["fdr", "size"]) {
      this.write(kind);
      this.place(kind);
    }
    this.tell();
  }

  help() {
    const { meta } = this.report;
    const limit = `This page has hits up to an FDR of ${meta.fdr}. For a larger cut-off, write the report with a larger fdr (--fdr).`;
    if (!meta.left_out) return limit;
    return `${limit} ${counted(meta.left_out, "hit")} are not on it and are counted only at an FDR of ${meta.fdr} and an effect of 0.`;
  }

  // The end of the slider of effects.
  largest() {
    const { rows, meta } = this.report;
    if (meta.effect.is_ratio) return 6;
    let most = 0;
    for (const value of rows.effect) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
    return most || 1;
  }

  numberInput(kind, described, most) {
    return h("input", {
      id: `cutoff-${kind}`, type: "number", min: 0, max: most, step: "any", autocomplete: "off",
      "aria-describedby": described, oninput: () => this.typed(kind),
    });
  }

  slider(kind, label, min, max, step) {
    return h("input", { type: "range", min, max, step, autocomplete: "off", "aria-label": label, oninput: () => this.slid(kind) });
  }

  typed(kind) {
    const input = this.number[kind];
    const value = input.valueAsNumber;
    const wrong = !(value >= 0) || (kind === "fdr" && (value === 0 || value > this.report.meta.fdr));
    input.setAttribute("aria-invalid", String(wrong));
    if (wrong) return;
    const { fdr, size } = this.report.cutoffs;
    this.apply(kind === "fdr" ? value : fdr, kind === "size" ? value : size);
    this.place(kind);
  }

  slid(kind) {
    const { meta, cutoffs } = this.report;
    const value = this.range[kind].valueAsNumber;
    if (kind === "size") this.apply(cutoffs.fdr, Number(brief(value)));
    else {
      const atEnd = value >= Number(this.range.fdr.max) - 0.005;
      this.apply(atEnd ? meta.fdr : Math.min(Number(brief(10 ** value)), meta.fdr), cutoffs.size);
    }
    this.write(kind);
  }

  choose(fdr, size) {
    this.apply(fdr, size);
    for (const kind of ["fdr", "size"]) {
      this.write(kind);
      this.place(kind);
    }
  }

  write(kind) {
    this.number[kind].value = String(this.report.cutoffs[kind]);
    this.number[kind].setAttribute("aria-invalid", "false");
  }

  place(kind) {
    const { fdr, size } = this.report.cutoffs;
    this.range[kind].value = String(kind === "fdr" ? Math.max(LEAST_LOG_FDR, Math.log10(fdr)) : size);
    this.range.fdr.setAttribute("aria-valuetext", `FDR at most ${fdr}`);
    this.range.size.setAttribute("aria-valuetext", `at least ${size}`);
  }

  apply(fdr, size) {
    const { cutoffs } = this.report;
    if (fdr !== cutoffs.fdr || size !== cutoffs.size) this.report.setCutoffs(fdr, size);
    this.reset.disabled = this.report.atDefault;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.near();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        this.far();
        this.tell();
      });
    });
  }

  tell() {
    const { hits, withHits } = totals(this.report);
    const { one, many } = this.report.noun;
    const some = this.report.meta.left_out && !this.report.atDefault ? " on this page" : "";
    this.state.textContent = `${counted(hits, "hit")}${some} in ${counted(withHits, one, many)}`;
  }
}

// Hits of all comparisons at the cut-offs.
function totals(report) {
  let [up, down, hits, withHits] = [0, 0, 0, 0];
  for (let t = 0; t < report.nComparisons; t++) {
    up += report.up[t];
    down += report.down[t];
    hits += report.hits(t);
    withHits += report.hits(t) > 0;
  }
  return { up, down, hits, withHits };
}
