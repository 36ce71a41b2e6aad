"""The NumPy kernel set, which defines what every other kernel set must return."""
