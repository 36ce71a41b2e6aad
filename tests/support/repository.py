"""Where things lie in this repository, however deep a test lies."""

from pathlib import Path

#: Packages, docs and benchmarks lie here; an sdist has no benchmarks.
ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
#: Modules that tests import. Programs that tests start need it on their path.
SUPPORT = TESTS / "support"
#: Answers of other packages, and of this one, in files.
DATA = TESTS / "data"
