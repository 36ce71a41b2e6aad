"""The two-sample tests."""
