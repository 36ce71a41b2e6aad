"""Null distributions, accurate far into their tails."""
