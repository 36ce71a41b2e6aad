"""Backends: a kernel set and the engines that can run it. See :mod:`.registry`."""
