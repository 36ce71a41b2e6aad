// The rows that the page carries, and which belong to a comparison or to a gene.

// Steps down are odd numbers.
const unzigzag = (code) => (code >>> 1) ^ -(code & 1);

function decodeRows(arrays, nGenes, isRatio) {
  const steps = arrays.row_gene;
  const n = steps.length;
  const gene = new Uint32Array(n);
  for (let i = 0, g = 0; i < n; i++) {
    g = (g + steps[i]) % nGenes;
    gene[i] = g;
  }
  const cells = (side) => arrays[`row_fewer_${side}`] || null;
  // Reference means are steps from the row before of the same gene.
  const reference = new Uint32Array(n);
  const last = new Uint32Array(nGenes);
  for (let i = 0; i < n; i++) {
    const g = gene[i];
    last[g] = (last[g] + unzigzag(arrays.row_reference_mean[i])) >>> 0;
    reference[i] = last[g];
  }
  const referenceMean = new Float32Array(reference.buffer);
  // Effects are steps from the ratio of means, or from their difference.
  const effect = new Uint32Array(n);
  const expected = new Float32Array(1);
  const bits = new Uint32Array(expected.buffer);
  for (let i = 0; i < n; i++) {
    const [target, other] = [arrays.row_target_mean[i], referenceMean[i]];
    expected[0] = isRatio ? target / other : target - other;
    if (Number.isNaN(expected[0])) bits[0] = 0;
    effect[i] = bits[0] + unzigzag(arrays.row_effect[i]);
  }
  return {
    n,
    gene,
    targetMean: arrays.row_target_mean,
    referenceMean,
    effect: new Float32Array(effect.buffer),
    log10P: arrays.row_log10_p,
    log10Fdr: arrays.row_log10_fdr,
    statistic: arrays.row_statistic,
    fewer: { target: cells("target"), reference: cells("reference") },
  };
}

class Report {
  constructor(meta, arrays) {
    this.meta = meta;
    this.arrays = arrays;
    this.genes = meta.features;
    this.rows = decodeRows(arrays, Math.max(1, meta.features.length), meta.effect.is_ratio);
    this.nComparisons = arrays.row_ends.length;
    this.effect = effectText(meta.effect);
    this.names = Array.from({ length: this.nComparisons }, (_, t) => this.name(t));
    this.noun = meta.noun;
    this.fillOwners();
    this.byGene = null;
    this.setCutoffs(meta.fdr, 0);
  }

  // Judges anew which rows are hits; see hits.js for what that gives.
  setCutoffs(fdr, size) {
    this.cutoffs = { fdr, size };
    Object.assign(this, judged(this, fdr, size));
  }

  // At the cut-offs of the file, where hits that are not on the page are counted, too.
  get atDefault() {
    return this.cutoffs.fdr === this.meta.fdr && this.cutoffs.size === 0;
  }

  labelOf(kind, t) {
    return this.meta.labels[kind][this.arrays[`label_${kind}`][t]];
  }

  // The target, with its level and reference where they are needed to tell comparisons apart.
  name(t) {
    let text = this.labelOf("target", t);
    if (this.meta.within !== null) text += ` in ${this.labelOf("within", t)}`;
    if (this.meta.several_references) text += ` vs ${this.labelOf("reference", t)}`;
    return text;
  }

  hits(t) {
    return this.up[t] + this.down[t] + this.level[t];
  }

  geneHits(g) {
    return this.geneUp[g] + this.geneDown[g] + this.geneLevel[g];
  }

  start(t) {
    return t ? this.arrays.row_ends[t - 1] : 0;
  }

  // The comparison of each row.
  fillOwners() {
    this.comparison = new Uint32Array(this.rows.n);
    for (let t = 0; t < this.nComparisons; t++) {
      this.comparison.fill(t, this.start(t), this.arrays.row_ends[t]);
    }
  }

  // Numbers of cells of a row: NaN if the result does not have them.
  cells(side, i) {
    const fewer = this.rows.fewer[side];
    return fewer ? this.arrays[`cells_${side}`][this.comparison[i]] - fewer[i] : NaN;
  }

  // What other tools know the gene by.
  symbol(g) {
    return this.meta.symbols ? this.meta.symbols[g] : this.genes[g];
  }

  identifier(g) {
    return this.meta.identifiers ? this.meta.identifiers[g] : this.genes[g];
  }

  rowsOfComparison(t) {
    const start = this.start(t);
    return Array.from({ length: this.arrays.row_ends[t] - start }, (_, i) => start + i);
  }

  rowsOfGene(g) {
    if (!this.byGene) this.byGene = this.sortedByGene();
    const { ends, order } = this.byGene;
    return Array.from(order.subarray(g ? ends[g - 1] : 0, ends[g]));
  }

  sortedByGene() {
    const ends = new Uint32Array(this.genes.length);
    for (const g of this.rows.gene) ends[g]++;
    for (let g = 1; g < ends.length; g++) ends[g] += ends[g - 1];
    const place = ends.slice();
    const order = new Uint32Array(this.rows.n);
    for (let i = this.rows.n - 1; i >= 0; i--) order[--place[this.rows.gene[i]]] = i;
    return { ends, order };
  }

  // The effect around 0: log2 of the ratio, or the difference.
  size(i) {
    const value = this.rows.effect[i];
    return this.meta.effect.is_ratio ? Math.log2(value) : value;
  }

  // The effect in a comparison on a gene whose row, if any, is i: also where only the heat map has it.
  sizeIn(t, g, i) {
    if (i >= 0) return this.size(i);
    const { map_genes: genes, map_sizes: sizes } = this.arrays;
    const k = genes.indexOf(g);
    return k < 0 ? NaN : sizes[t * genes.length + k];
  }

  // 1 up, -1 down, 0 neither.
  direction(i) {
    return Math.sign(this.rows.targetMean[i] - this.rows.referenceMean[i]) || 0;
  }

  // Rows that are not listed, in the bins of a grid; null if there are none.
  behind(kind, k) {
    const a = this.arrays;
    const start = k ? a[`${kind}_ends`][k - 1] : 0;
    const end = a[`${kind}_ends`][k];
    if (start === end) return null;
    const [left, right, top] = a[`${kind}_limits`].subarray(3 * k, 3 * k + 3);
    return {
      left, right, top,
      shape: this.meta.bins[kind],
      bins: a[`${kind}_bins`].subarray(start, end),
      counts: a[`${kind}_counts`].subarray(start, end),
    };
  }
}
