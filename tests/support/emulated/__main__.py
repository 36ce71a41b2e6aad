"""Run Python with what sanitized libraries need: ``python tests/support/emulated -m pytest``."""

import os
import sys

from build import sanitizer_environment

variables = sanitizer_environment()
if variables is None:
    sys.exit("The compiler has no address sanitizer.")
os.execve(sys.executable, [sys.executable, *sys.argv[1:]], {**os.environ, **variables})
