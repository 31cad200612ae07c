"""Sphinx configuration of the documentation. `bash launch/docs.sh` builds it, from the root of the repository."""

import bert_jax
from docs import generate, offline

project = 'bert_jax'
release = version = bert_jax.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
exclude_patterns = ['_build']
smartquotes = False  # they would turn -- of a flag into a dash
suppress_warnings = ['ref.python']  # a name that two classes share, as `Config`, is linked to one of them

myst_enable_extensions = ['attrs_inline', 'colon_fence', 'deflist', 'fieldlist']
myst_heading_anchors = 4

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 76
python_use_unqualified_type_names = True
default_role = 'code'

copybutton_prompt_text = '$ '
copybutton_exclude = '.linenos, .gp, .go'

html_theme = 'furo'
html_title = 'bert_jax'
html_static_path = ['_static']
html_css_files = ['style.css']
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False


def setup(app):
    """Write the reference before Sphinx reads its sources, and check the pages that it has built."""
    generate.setup(app)
    offline.setup(app)
