"""Results: the schema, in memory, in a file, and exports."""
