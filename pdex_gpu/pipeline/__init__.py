"""One call, from an opened screen to its results: execute, identify, record, write."""
