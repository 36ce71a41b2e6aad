"""Null distributions, accurate far into their tails.

Functions of arrays, which import nothing else of ``stats``. To add one, write a module here and
hold it to exact values in ``tests/unit/stats``, with the worst error seen.
"""
