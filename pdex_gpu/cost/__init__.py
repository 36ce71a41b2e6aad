"""What a run takes: what it does in numbers, and constants of a machine, become seconds."""
