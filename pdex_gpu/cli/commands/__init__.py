"""One module per command; each imports heavy modules only when it runs."""
