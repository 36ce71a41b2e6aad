"""Calibration of a screen's p-values with its control cells."""
