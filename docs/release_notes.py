"""
Print the part of CHANGELOG.rst on one version, as Markdown: the text of its release.

`python docs/release_notes.py 0.2.0`; the version must be that of both package.xml files.
"""

from __future__ import annotations

from pathlib import Path
import re
import sys
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ('package.xml', 'karmma_msgs/package.xml')


def check_version(version: str, root: Path = ROOT) -> None:
    """
    Check that a tag is the version of both packages.

    :raises ValueError: naming the file that states another version.
    """
    for name in MANIFESTS:
        stated = ElementTree.parse(root / name).getroot().findtext('version')
        if stated != version:
            raise ValueError(f'{name} states version {stated}; expected {version}, as the tag')


def notes(changelog: str, version: str) -> str:
    """
    Return the section of a version, headings as Markdown.

    :raises ValueError: when there is no such section, or an empty one.
    """
    sections = re.split(r'^(\S[^\n]*)\n-+\n', changelog, flags=re.MULTILINE)
    for title, text in zip(sections[1::2], sections[2::2]):
        if title.split()[0] == version and text.strip():
            return re.sub(r'``([^`]+)``', r'`\1`', text.strip()) + '\n'
    raise ValueError(f'CHANGELOG.rst has no section {version}; expected a heading such as '
                     f'"{version} (2026-12-01)" with text below it')


if __name__ == '__main__':
    try:
        check_version(sys.argv[1])
        print(notes((ROOT / 'CHANGELOG.rst').read_text(encoding='utf-8'), sys.argv[1]), end='')
    except (ValueError, IndexError) as error:
        sys.exit(f'release_notes: {error}')
