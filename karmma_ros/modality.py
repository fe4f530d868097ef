"""
The names of modalities, their order, and the names of their subsets.

What a modality is (its specification, buffer, message types and so on) is in
`karmma_ros.modalities`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from itertools import combinations
import re
from typing import Any, ClassVar, NamedTuple
import warnings

from karmma_ros.errors import InvalidSettingError, printable

ENTRY_POINTS = 'karmma_ros.modalities'
"""Group of the entry points by which other packages add types: `gaze = my_package.gaze:Gaze`."""
_NAME = re.compile(r'[a-z][a-z0-9]*(_[a-z0-9]+)*')
_LONGEST = 64
"""Characters of a name."""


class TypeEntry(NamedTuple):
    """A type of modality in the registry."""

    location: str
    """Its class, `module:Class`, which is loaded when it is needed."""
    letter: str = ''
    """In names of subsets."""
    synonyms: tuple[str, ...] = ()


REGISTRY: dict[str, TypeEntry] = {
    'rgb': TypeEntry('karmma_ros.modalities.rgb:Rgb', 'V', ('video', 'camera')),
    'flow': TypeEntry('karmma_ros.modalities.flow:Flow', 'F'),
    'audio': TypeEntry('karmma_ros.modalities.audio:Audio', 'A', ('microphone',)),
    'detections': TypeEntry('karmma_ros.modalities.detections:Detections', 'D'),
    'imu': TypeEntry('karmma_ros.modalities.imu:Imu', 'I'),
    'depth': TypeEntry('karmma_ros.modalities.depth:Depth', 'Z'),
    'skeleton': TypeEntry('karmma_ros.modalities.skeleton:Skeleton', 'S'),
    'joint_state': TypeEntry('karmma_ros.modalities.joint_state:JointState', 'J'),
    'vector': TypeEntry('karmma_ros.modalities.vector:Vector', 'X'),
}
"""Name → type, in canonical order; those of other packages follow."""


class Modality(str):
    """
    The name of one input of a network: that of its type, or with a suffix of one of several.

    `rgb` and `rgb_wrist` are two inputs of the type `rgb`. Equal names are the same object. The
    name is used in parameters, messages and files.

    >>> from karmma_ros.modality import Modality, parse_subset, subset_name
    >>> Modality('rgb_wrist').type_name, Modality('rgb_wrist').letter
    ('rgb', 'V_wrist')
    >>> subset_name(parse_subset('audio+video'))
    'V+A'

    :raises InvalidSettingError: for a name without a type.
    """

    RGB: ClassVar[Modality]
    FLOW: ClassVar[Modality]
    AUDIO: ClassVar[Modality]
    DETECTIONS: ClassVar[Modality]

    type_name: str
    """Name of its type."""
    suffix: str
    """What follows the name of the type and `_`; empty for the only one of its type."""

    def __new__(cls, name: str) -> Modality:
        known = _INSTANCES.get(name)
        return _create(cls, name) if known is None else known

    def __reduce__(self) -> tuple[Any, ...]:
        return Modality, (self.value,)

    @property
    def value(self) -> str:
        """Return the name as a plain text."""
        return str(self)

    @property
    def letter(self) -> str:
        """Return the paper's letter, V (RGB video), F (flow), A (audio), D (boxes), or another."""
        letter = REGISTRY[self.type_name].letter
        return f'{letter}_{self.suffix}' if self.suffix else letter

    def sibling(self, type_name: str) -> Modality:
        """Return the modality of another type with the same suffix."""
        return Modality(f'{type_name}_{self.suffix}' if self.suffix else type_name)

    @classmethod
    def parse(cls, text: str) -> Modality:
        """
        Read a name (`rgb`), a letter (`V`) or a common synonym (`video`), in any case.

        :raises InvalidSettingError: when `text` names no modality.
        """
        key = text.strip().lower()
        if key in _INSTANCES:
            return _INSTANCES[key]
        first, _, suffix = key.partition('_')
        for name, entry in registered_types().items():
            if first in (entry.letter.lower(), *entry.synonyms):
                return cls(f'{name}_{suffix}' if suffix else name)
        if _type_of(key) is None:
            raise _unknown(text)
        return cls(key)


_INSTANCES: dict[str, Modality] = {}
_TO_ADD: list[str] = [ENTRY_POINTS]
"""Groups of entry points that were not read yet."""
_BY_LOCATION: set[str] = set()
"""Types that were registered by their class."""


def _create(cls: type[Modality], name: str) -> Modality:
    type_name = _type_of(name)
    if type_name is None or not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise _unknown(name)
    modality = str.__new__(cls, name)
    modality.type_name, modality.suffix = type_name, name[len(type_name) + 1:]
    return _INSTANCES.setdefault(str(name), modality)


def _unknown(name: str) -> InvalidSettingError:
    types = registered_types()
    return InvalidSettingError(
        'modality', name,
        f'{", ".join(types)}, or a letter of {" ".join(e.letter for e in types.values())}',
        'one of several of a type is named TYPE_SUFFIX, as rgb_wrist; other types come with '
        f'packages that have an entry point {ENTRY_POINTS}')


def _type_of(name: str) -> str | None:
    """Return the longest name of a type that a name is, or that it begins with before a `_`."""
    if name not in REGISTRY:  # a package may have a type rgb_thermal, which is no rgb
        _add_installed()
    fit = [each for each in REGISTRY if name == each or name.startswith(f'{each}_')]
    return max(fit, key=len, default=None)


def is_modality(name: str) -> bool:
    """Return whether a name is that of a modality, without a letter or synonym."""
    return _type_of(name) is not None


def letter_of(name: str) -> str:
    """Return the letter of a name in a message; its first one where its type is not installed."""
    try:
        return Modality(name).letter
    except InvalidSettingError:
        return printable(name[:1]).upper() or '?'


def registered_types() -> Mapping[str, TypeEntry]:
    """Return every type by name, in canonical order, those of installed packages included."""
    _add_installed()
    return REGISTRY


def register(type_name: str, location: str) -> None:
    """
    Add a type of modality after the others.

    :param location: its class, `module:Class`, a subclass of `ModalityType` with a `letter`.
    :raises InvalidSettingError: for a name or letter that another type has, or a class that
        cannot be loaded.
    """
    entry = TypeEntry(location)
    if REGISTRY.get(type_name, entry).location != location:
        raise InvalidSettingError('modality type', type_name, 'a name that no other type has',
                                  f'it is that of {REGISTRY[type_name].location}')
    if type_name in REGISTRY:
        return
    if not _NAME.fullmatch(type_name):
        raise InvalidSettingError('modality type', type_name, 'lower case letters, digits and _')
    letter = getattr(load_type(type_name, location), 'letter', None)
    if not isinstance(letter, str):
        raise InvalidSettingError(
            f'modality type {type_name}', location, 'a subclass of ModalityType with a letter')
    same = next((name for name, each in REGISTRY.items() if each.letter == letter), None)
    if same is not None or not letter.isalpha():
        raise InvalidSettingError(
            f'letter of modality type {type_name}', letter,
            'a letter that no other type has', f'{same} has it' if same else '')
    REGISTRY[type_name] = entry._replace(letter=letter)
    _BY_LOCATION.add(type_name)


def registered_by_location(modalities: Iterable[Modality]) -> dict[str, str]:
    """Return type name → `module:Class` of those types that no installed package registers."""
    names = {m.type_name for m in modalities} & _BY_LOCATION
    return {name: REGISTRY[name].location for name in sorted(names)}


def load_type(type_name: str, location: str) -> Any:
    """
    Return the class `module:Class` of a type.

    :raises InvalidSettingError: when it cannot be imported.
    """
    module, _, name = location.partition(':')
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # the code of another package may raise anything
        raise InvalidSettingError(
            f'modality type {type_name}', location, 'module:Class that can be imported',
            f'{type(error).__name__}: {error}') from error


def _add_installed() -> None:
    """Add the types of installed packages, once, in the order of their names."""
    groups = tuple(_TO_ADD)
    _TO_ADD.clear()  # first, for a package may name modalities while it is imported
    installed = [each for group in groups for each in entry_points(group=group)]
    for each in sorted(installed, key=lambda each: each.name):
        try:
            register(each.name, each.value)
            _BY_LOCATION.discard(each.name)
        except Exception as error:  # of one package, which must not stop all others
            text = str(error) if isinstance(error, InvalidSettingError) else (
                f'modality type {each.name}: {type(error).__name__}: {error}')
            warnings.warn(f'{text}; it is not used', stacklevel=2)


Modality.RGB, Modality.FLOW = Modality('rgb'), Modality('flow')
Modality.AUDIO, Modality.DETECTIONS = Modality('audio'), Modality('detections')

PAPER_MODALITIES = (Modality.RGB, Modality.FLOW, Modality.AUDIO, Modality.DETECTIONS)
"""Those of the paper, V F A D."""


def listed(modalities: Iterable[Modality]) -> tuple[Modality, ...]:
    """Return those that statuses and reports list: the paper's, and a network's others."""
    return in_order({*PAPER_MODALITIES, *modalities})


def in_order(modalities: Iterable[Modality]) -> tuple[Modality, ...]:
    """Sort by type, V F A D first, then by suffix; duplicates collapse."""
    types = list(REGISTRY)
    return tuple(sorted(set(modalities), key=lambda m: (types.index(m.type_name), m.suffix)))


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


_ALL_SUBSETS = 5
"""Modalities up to which every subset is taken, 31 of them."""


def main_subsets(modalities: Iterable[Modality]) -> list[tuple[Modality, ...]]:
    """
    List the subsets that something is computed for, the largest first.

    These are all subsets of up to 5 modalities. Of more modalities there are too many: then all
    together, all but one, and each alone are listed.
    """
    every = in_order(modalities)
    if len(every) <= _ALL_SUBSETS:
        return subsets(every)
    return [every, *(tuple(m for m in every if m != absent) for absent in every),
            *((m,) for m in every)]
