"""Where results of ranges of genes go: arrays in memory, or files that outlive the process."""
