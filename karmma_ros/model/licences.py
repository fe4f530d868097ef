"""The licences of models that another one was made of; what they forbid holds for it, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
import re
from typing import Any

from karmma_ros.model.bundle import CONFIG, stored_source

LICENCE, COMMERCIAL_USE = 'licence', 'commercial_use'
"""Keys of what a model directory states about its weights (`Bundle.source`)."""


def merged_licence(sources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Return the licences of several models as that of a model that is made of them.

    :param sources: what each directory states; empty if nothing.
    :returns: an empty mapping if none of them has a licence.
    """
    known = [source for source in sources if source.get(LICENCE)]
    if not known:
        return {}
    return {
        LICENCE: '; '.join(dict.fromkeys(str(source[LICENCE]) for source in known)),
        COMMERCIAL_USE: all(source.get(COMMERCIAL_USE) is not False for source in known)}


def inherited_licence(folders: Iterable[Path]) -> dict[str, Any]:
    """
    Return the licence of a model whose training started from others.

    :param folders: theirs; one that is no model directory is left out.
    """
    return merged_licence(stored_source(folder) for folder in dict.fromkeys(folders)
                          if (folder / CONFIG).is_file())


def terms(source: Mapping[str, Any]) -> str:
    """Return the licence and, where it forbids commercial use, that it does; empty without one."""
    licence = str(source.get(LICENCE, ''))
    forbidden = licence and source.get(COMMERCIAL_USE) is False
    return f'{licence}: no commercial use' if forbidden else licence


def licence_note(source: Mapping[str, Any]) -> str:
    """Return what follows the name of the data set of a trained model; empty without a licence."""
    return f'; started from weights under {terms(source)}' if terms(source) else ''


def with_licence(card: str, source: Mapping[str, Any]) -> str:
    """Return a model card that states the licence of the weights that a model started from."""
    if not terms(source):
        return card
    return (re.sub(r'^license: .*$', 'license: other', card, count=1, flags=re.MULTILINE)
            + f'\n## Licence\n\nOf the weights it started from: {terms(source)}.\n')
