"""Correction for multiple testing, in memory and for more p-values than fit there.

May import the rest of ``stats`` and the subpackages below it. To add a method, add its name to
``FDR_METHODS`` in :mod:`..options` and its formula to :mod:`.correction`.
"""
