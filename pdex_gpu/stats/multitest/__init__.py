"""Correction for multiple testing."""
