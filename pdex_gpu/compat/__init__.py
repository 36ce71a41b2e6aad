"""Drop-in calls of other packages: pdex 0.1.28, pdex 0.3, and scanpy."""
