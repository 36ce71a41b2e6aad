# What R says of r_screen.csv. In this folder: `Rscript r_truths.R > r_truths.csv`.
# Made with R 4.2.2, coin 1.4-2, kSamples 1.2-9, pROC 1.18.0.
suppressPackageStartupMessages({library(coin); library(kSamples); library(pROC)})

say <- function(gene, what, value) {
  for (k in seq_along(value)) cat(gene, ",", what[k], ",", sprintf("%.17g", value[k]), "\n", sep = "")
}

screen <- read.csv("r_screen.csv", stringsAsFactors = TRUE)
cat("gene,what,value\n")
for (gene in c("counts", "normal")) {
  data <- data.frame(y = screen[[gene]], g = relevel(screen$group, "t"), b = screen$batch)
  # van Elteren: ranks within blocks over N + 1, standardised by their permutation distribution.
  data$score <- ave(data$y, data$b, FUN = rank) / (ave(data$y, data$b, FUN = length) + 1)
  for (side in c("two.sided", "less", "greater")) {
    test <- independence_test(score ~ g | b, data, teststat = "scalar", alternative = side)
    say(gene, paste0("van_elteren_", side), pvalue(test))
  }
  say(gene, "van_elteren_z", statistic(test))
  # A fixed effect of the batch.
  linear <- summary(lm(y ~ b + relevel(g, "r"), data))$coefficients
  say(gene, paste0("linear_", c("effect", "error", "t", "p")), linear[nrow(linear), ])
  # Anderson-Darling, both ways with ties, and its combination over batches. Rounded by kSamples.
  blocks <- lapply(unname(split(data, data$b)),
                   function(d) list(d$y[d$g == "t"], d$y[d$g == "r"]))
  together <- suppressWarnings(do.call(ad.test.combined, c(blocks, method = "asymptotic")))$ad.c
  for (k in 1:2) {
    version <- c("right", "midrank")[k]
    say(gene, paste0("anderson_", c("statistic_", "p_"), version), together[k, 2:3])
  }
  # AUROC of the target with DeLong's interval, and other tests without batches.
  curve <- roc(data$g, data$y, levels = c("r", "t"), direction = "<", quiet = TRUE)
  say(gene, paste0("auroc_", c("low", "middle", "high")), ci.auc(curve, method = "delong"))
  two <- split(data$y, data$g)
  for (side in c("two.sided", "less", "greater")) {
    for (correct in c(TRUE, FALSE)) {
      test <- wilcox.test(two$t, two$r, side, exact = FALSE, correct = correct)
      say(gene, paste("wilcoxon", side, correct, sep = "_"), test$p.value)
    }
    say(gene, paste0("welch_", side), t.test(two$t, two$r, side)$p.value)
    say(gene, paste0("pooled_", side), t.test(two$t, two$r, side, var.equal = TRUE)$p.value)
  }
  say(gene, paste0("welch_", c("low", "high")), t.test(two$t, two$r)$conf.int)
  say(gene, paste0("pooled_", c("low", "high")), t.test(two$t, two$r, var.equal = TRUE)$conf.int)
}
