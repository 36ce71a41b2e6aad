// Which rows are hits at cut-offs of FDR and effect, and how many each comparison and gene has.

// Returns, by row: hit; by comparison: up, down, level, best (the row of the strongest hit, or -1),
// ownHit; by gene: geneUp, geneDown, geneLevel.
function judged(report, fdr, size) {
  const { rows, arrays: a, nComparisons: n } = report;
  const nGenes = report.genes.length;
  const hit = new Uint8Array(rows.n);
  const best = new Int32Array(n).fill(-1);
  const [up, down, level] = [0, 1, 2].map(() => new Uint32Array(n));
  const [geneUp, geneDown, geneLevel] = [0, 1, 2].map(() => new Uint32Array(nGenes));
  const isDefault = fdr === report.meta.fdr;
  const limit = Math.fround(Math.log10(fdr));
  const { every, above, below } = largeEffects(report.meta.effect.is_ratio, size);
  const { gene, effect, log10Fdr, log10P, targetMean, referenceMean } = rows;
  for (let t = 0; t < n; t++) {
    const start = report.start(t);
    // Hits of the file come first; no other row has a smaller FDR than its cut-off.
    for (let i = start; i < start + a.row_hits[t]; i++) {
      if (!(isDefault || log10Fdr[i] <= limit)) continue;
      if (!(every || effect[i] >= above || effect[i] <= below)) continue;
      hit[i] = 1;
      if (best[t] < 0 || log10P[i] < log10P[best[t]]) best[t] = i;
      const g = gene[i];
      if (targetMean[i] > referenceMean[i]) {
        up[t]++;
        geneUp[g]++;
      } else if (targetMean[i] < referenceMean[i]) {
        down[t]++;
        geneDown[g]++;
      } else {
        level[t]++;
        geneLevel[g]++;
      }
    }
  }
  const ownHit = a.own_hit.map((was, t) => (
    was && (isDefault || a.own_log10_fdr[t] <= limit) && Math.abs(a.own_size[t]) >= size ? 1 : 0
  ));
  const found = { hit, best, ownHit, up, down, level, geneUp, geneDown, geneLevel };
  if (!isDefault || size !== 0) return found;
  return {
    ...found, ownHit: a.own_hit, up: a.hits_up, down: a.hits_down, level: a.hits_level,
    geneUp: a.gene_hits_up, geneDown: a.gene_hits_down, geneLevel: a.gene_hits_level,
  };
}

// The ratios, or differences, that are at least so far from no effect; every one is, without a limit.
function largeEffects(isRatio, size) {
  const [above, below] = isRatio ? [2 ** size, 2 ** -size] : [size, -size];
  return { every: size === 0, above, below };
}
