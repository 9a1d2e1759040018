# SPDX-License-Identifier: MIT
"""Sphinx: `make docs` builds the pages into build/docs.

The source folder is the root of the repository, so that a link from one Markdown file to another,
or to a source file, is the same on a repository's page and here. What this adds to Sphinx stands
in _ext/: formulas as MathML, docstrings, a page for each source file that the text names.
"""

import sys
from pathlib import Path

import tilegrad

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "tilegrad"
author = "the tilegrad authors"
copyright = "the tilegrad authors, MIT licence"  # no year: two builds are the same bytes
version = release = tilegrad.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "mathml",
    "source_pages",
    "names",
    "command_help",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/tutorials/*.ipynb",
    "examples/README.md",
    "benchmarks/README.md",
    "python/tilegrad/data/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = [".git", ".venv", "build", "dist", "runs"]
templates_path = ["_templates"]

# Markdown and notebooks: nothing runs here. The notebooks hold what they printed and drew when
# `make tutorials` wrote them, and the tests hold them to their scripts.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
sd_card_legacy_separators = False
myst_heading_anchors = 3  # the anchors that a repository's page makes
html_math_renderer = "mathml"

# Docstrings. Shapes and dtypes stand in their text, in words; signatures show names and defaults.
autodoc_member_order = "bysource"
autodoc_typehints = "none"
toc_object_entries = False
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
add_module_names = False

nitpicky = True

html_theme = "furo"
html_title = "tilegrad"
html_static_path = ["_static"]
html_css_files = ["tilegrad.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_additional_pages = {"index": "to_start.html"}
html_theme_options = {
    "light_logo": "wordmark-light.svg",
    "dark_logo": "wordmark-dark.svg",
    "sidebar_hide_name": True,
    "light_css_variables": {"color-brand-primary": "#0b6b57", "color-brand-content": "#0b6b57"},
    "dark_css_variables": {"color-brand-primary": "#5fd0b4", "color-brand-content": "#5fd0b4"},
}
smartquotes = False  # "mean" is what one types
highlight_language = "none"  # a block that names none is a shell's, or a formula
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
