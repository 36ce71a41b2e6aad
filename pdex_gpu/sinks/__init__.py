"""Destinations of results: arrays in memory, or files that outlive the process."""
