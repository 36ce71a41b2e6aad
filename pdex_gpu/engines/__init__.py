"""Engines decide when and where ranges of genes run. They know nothing of tests or kernel sets."""
