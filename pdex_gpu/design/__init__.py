"""Labels, groups of cells and the contrasts between them: who is compared with whom."""
