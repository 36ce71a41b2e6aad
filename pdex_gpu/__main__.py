"""Entry point of ``python -m pdex_gpu``, which does the same as the command ``pdex-gpu``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
