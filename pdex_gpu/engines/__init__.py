"""Engines decide when and where ranges of genes run. They know no test and no kernel set."""
