"""Settings of the documentation site: `make docs` builds it, warnings are errors."""

from __future__ import annotations

from pathlib import Path
import re
import sys
from xml.etree import ElementTree

from pygments.lexers.special import TextLexer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = 'karmma_ros'
author = 'karmma_ros maintainers'
copyright = author  # noqa: A001  Sphinx reads this name
release = ElementTree.parse(ROOT / 'package.xml').getroot().findtext('version')

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.doctest', 'sphinx.ext.viewcode']
exclude_patterns = ['examples', 'results_remarks.md']
html_theme = 'furo'
html_title = f'karmma_ros {release}'
html_static_path: list[str] = []

myst_heading_anchors = 4
myst_enable_extensions = ['colon_fence']

default_role = 'literal'
autodoc_typehints = 'description'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'undoc-members': False, 'show-inheritance': False}
autodoc_mock_imports = ['karmma_msgs', 'rclpy']
"""Message packages exist only where they were built."""

_ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>$', re.MULTILINE)


def _adapt(app: object, page: str, source: list[str]) -> None:
    """
    Turn what GitHub reads into what MyST reads.

    Links out of docs/ become code, for the site has the pages alone; the repository has the rest.
    """
    text = _ANCHOR.sub(r'(\1)=', source[0])
    source[0] = re.sub(r'\[([^\]]+)\]\(\.\./([^)]*)\)', _as_path, text)


def _as_path(link: re.Match[str]) -> str:
    words, path = link.group(1).strip('`'), link.group(2)
    return f'`{path}`' if words in path else f'{words} (`{path}`)'


def setup(app: object) -> None:
    """Connect the hooks."""
    app.add_lexer('csv', TextLexer)  # type: ignore[attr-defined]
    app.connect('source-read', _adapt)  # type: ignore[attr-defined]
