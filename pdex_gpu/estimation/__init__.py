"""The cost of a run: seconds, predicted from its amount of work and a machine's constants."""
