"""Ground that every room may stand on: files, checks, threads, progress."""
