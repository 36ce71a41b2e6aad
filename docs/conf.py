"""Settings of the site. ``make docs`` builds it; any warning is an error.

Nothing is fetched while building or reading: no inventories of other sites, no fonts, no scripts
from elsewhere.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import pdex_gpu  # noqa: E402

# What runs on the machine that builds the site must not show in it.
os.environ.pop("PDEX_GPU_BACKEND", None)

project = "pdex_gpu"
author = "pdex_gpu authors"
version = release = pdex_gpu.__version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "formulas",
    "generated",
    "links",
]

source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "_ext", "data", "jupyter_execute", "**.ipynb_checkpoints"]

# --- text ------------------------------------------------------------------------------------

smartquotes = False  # types and options are shown as they are typed
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are stored with their outputs
nb_merge_streams = True

# --- API reference ---------------------------------------------------------------------------

autodoc_typehints = "none"  # types stand in the docstrings, with shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True}
numpydoc_show_class_members = False
numpydoc_use_plots = False
nitpicky = True

# --- HTML ------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = f"pdex_gpu {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["messages.js", "navigation.js"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False
html_theme_options = {
    "show_navbar_depth": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "navigation_with_keys": False,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
