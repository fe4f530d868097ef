"""The four sensor streams of the paper and the names of their subsets."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from itertools import combinations

from karmma_ros.errors import InvalidSettingError


class Modality(str, Enum):
    """
    One kind of input. Iterating the class gives the canonical order V, F, A, D.

    The value is the name in parameters, messages and files.

    >>> from karmma_ros.modality import Modality, parse_subset, subset_name
    >>> [modality.letter for modality in Modality]
    ['V', 'F', 'A', 'D']
    >>> subset_name(parse_subset('audio+video'))
    'V+A'
    """

    RGB = 'rgb'
    FLOW = 'flow'
    AUDIO = 'audio'
    DETECTIONS = 'detections'

    def __str__(self) -> str:
        return self.value

    @property
    def letter(self) -> str:
        """Return the paper's letter: V (RGB video), F (flow), A (audio), D (detections)."""
        return _LETTERS[self]

    @classmethod
    def parse(cls, text: str) -> Modality:
        """
        Read a name (`rgb`), the paper's letter (`V`) or a common synonym (`video`).

        :raises InvalidSettingError: when `text` names no modality.
        """
        key = text.strip().lower()
        try:
            return _SYNONYMS[key]
        except KeyError:
            raise InvalidSettingError(
                'modality', text, ', '.join(m.value for m in cls) + ', or a letter of V F A D'
            ) from None


_LETTERS = {
    Modality.RGB: 'V',
    Modality.FLOW: 'F',
    Modality.AUDIO: 'A',
    Modality.DETECTIONS: 'D',
}
_SYNONYMS = {
    **{m.value: m for m in Modality},
    **{letter.lower(): m for m, letter in _LETTERS.items()},
    'video': Modality.RGB,
    'camera': Modality.RGB,
}


def in_order(modalities: Iterable[Modality]) -> tuple[Modality, ...]:
    """Sort into the canonical order V, F, A, D; duplicates collapse."""
    wanted = set(modalities)
    return tuple(m for m in Modality if m in wanted)


def subset_name(modalities: Iterable[Modality]) -> str:
    """Name a subset as the paper does, `V+F+A`; the empty one is `none`."""
    return '+'.join(m.letter for m in in_order(modalities)) or 'none'


def parse_subset(text: str) -> tuple[Modality, ...]:
    """
    Read `V+F+A` or `rgb+audio`, in any order.

    :raises InvalidSettingError: when a part names no modality.
    """
    return in_order(Modality.parse(part) for part in text.split('+'))


def subsets(modalities: Iterable[Modality]) -> list[tuple[Modality, ...]]:
    """List every non-empty subset, the largest first, each in canonical order."""
    ordered = in_order(modalities)
    return [
        chosen for size in range(len(ordered), 0, -1) for chosen in combinations(ordered, size)
    ]
