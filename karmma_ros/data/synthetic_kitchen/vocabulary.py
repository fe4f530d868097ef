"""
The classes of the synthetic kitchen, their order in a split, and its random generators.

A key of integers names a generator, one for each purpose; equal keys give equal numbers in every
process and on every machine, whatever the order of the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
import itertools
from math import floor
from typing import TypeVar

from karmma_ros.errors import InvalidSettingError
from karmma_ros.prediction import NOUN, VERB, Vocabulary
import numpy as np


class Stream(IntEnum):
    """The first number of every key: each purpose has its own random numbers."""

    ORDER = 1
    INSTANCE = 2
    EPISODE = 3
    START = 4
    BACKDROP = 5
    GRAIN = 6
    BOXES = 7
    AUDIO = 8
    RUSTLE = 9
    FAN = 10
    HIT = 11
    CLATTER = 12


def generator(*key: int) -> np.random.Generator:
    """Return the generator of a key of non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def microseconds(t_s: float) -> int:
    """Return a time of at least 0 s as an integer, for the key of a frame's generator."""
    return round(t_s * 1e6)


VERBS = ('wash', 'cut', 'pour', 'mix', 'shake', 'scrape', 'peel', 'squeeze')
"""Sustained, cyclic motions: any two seconds show a complete cycle."""

NOUNS = ('spoon', 'plate', 'pan', 'bowl', 'sponge', 'cup', 'bottle', 'onion', 'bread', 'carrot')

GARAGE_NOUNS = ('hammer', 'wrench', 'paintbrush', 'plank', 'tin', 'tube', 'cable', 'tile', 'wheel',
                'rag')

IDLE = 'nothing'
"""Verb and noun of a clip in which nothing is done, where a data set has such clips."""

ALL_NOUNS = NOUNS + GARAGE_NOUNS
"""A noun's index here is part of the keys: no two domains share an object."""

NUM_ACTIONS = len(VERBS) * len(NOUNS)
"""All pairs of verb and noun, so that neither can be guessed from the other."""


_Chosen = TypeVar('_Chosen', bound='_Choice')


class _Choice(str, Enum):
    """One of a few names."""

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls: type[_Chosen], text: str, setting: str = '') -> _Chosen:
        """
        Read a name.

        :param setting: where it is given, for the error; none: the type.
        :raises InvalidSettingError: when there is none of that name.
        """
        try:
            return cls(text)
        except ValueError:
            raise InvalidSettingError(
                setting or cls.__name__.lower(), text,
                ', '.join(each.value for each in cls)) from None


class Split(_Choice):
    """A part of the data set; no object instance occurs in two of them."""

    TRAIN = 'train'
    VALIDATION = 'validation'
    TEST = 'test'

    @property
    def number(self) -> int:
        """Return the number that is part of the keys."""
        return tuple(Split).index(self)


class Domain(_Choice):
    """
    Where the actions take place.

    Both have the same verbs. Objects, surroundings, camera, light and audio differ: encoders
    trained on one have not seen the other.
    """

    KITCHEN = 'kitchen'
    GARAGE = 'garage'

    @property
    def nouns(self) -> tuple[str, ...]:
        """Return the classes of its objects."""
        return NOUNS if self is Domain.KITCHEN else GARAGE_NOUNS

    @classmethod
    def of(cls, noun: str) -> Domain:
        """Return the domain of a noun."""
        return cls.KITCHEN if noun in NOUNS else cls.GARAGE


assert all(len(domain.nouns) == len(NOUNS) for domain in Domain)


@dataclass(frozen=True)
class Classes:
    """The verbs and nouns that occur in a data set: all of a domain, or some of them."""

    domain: Domain
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]

    @classmethod
    def of(
        cls, domain: Domain, verbs: Sequence[str] = (), nouns: Sequence[str] = (),
        prefix: str = '',
    ) -> Classes:
        """
        Choose classes of a domain by their names, in its order.

        :param verbs: and nouns: none for all.
        :param prefix: of the settings that the error names.
        :raises InvalidSettingError: for a name that the domain lacks.
        """
        chosen = []
        for setting, names, known in (('verbs', verbs, VERBS), ('nouns', nouns, domain.nouns)):
            for name in names:
                if name not in known:
                    raise InvalidSettingError(f'{prefix}{setting}', name, ', '.join(known))
            chosen.append(tuple(name for name in known if name in names or not names))
        return cls(domain, *chosen)

    @property
    def all(self) -> bool:
        """Whether no class of the domain is left out."""
        return self.verbs == VERBS and self.nouns == self.domain.nouns

    def vocabulary(self, idle: bool = False) -> Vocabulary:
        """
        Return the class names of both heads.

        :param idle: whether the last class of each is `IDLE`, the background.
        """
        heads, last = {VERB: self.verbs, NOUN: self.nouns}, (IDLE,) if idle else ()
        return Vocabulary({head: (*names, *last) for head, names in heads.items()},
                          IDLE if idle else '')

    def episodes(
        self, split: Split, seed: int, count: int, idle: float = 0.0
    ) -> Sequence[int]:
        """Return the indices of the first `count` episodes of the domain with these classes."""
        if self.all:
            return range(count)
        ids = {(VERBS.index(verb), self.domain.nouns.index(noun))
               for verb in self.verbs for noun in self.nouns}
        if idle:
            ids.add((len(VERBS), len(NOUNS)))
        own = (index for index in itertools.count() if action_of(split, seed, index, idle) in ids)
        return list(itertools.islice(own, count))


def vocabulary(domain: Domain = Domain.KITCHEN, idle: bool = False) -> Vocabulary:
    """Return the names of all classes of a domain, as `Classes.vocabulary` does."""
    return Classes.of(domain).vocabulary(idle)


def action_of(split: Split, seed: int, index: int, idle: float = 0.0) -> tuple[int, int]:
    """
    Return the verb id and noun id of a clip; its domain gives the names.

    Every `NUM_ACTIONS` clips of actions are a permutation of all: a split of any size is balanced
    to within one clip an action.

    :param idle: fraction of the clips, evenly spread, in which nothing is done.
    """
    before = floor(index * idle)
    if floor((index + 1) * idle) > before:
        return len(VERBS), len(NOUNS)
    index -= before
    block, position = divmod(index, NUM_ACTIONS)
    order = generator(Stream.ORDER, seed, split.number, block).permutation(NUM_ACTIONS)
    verb, noun = divmod(int(order[position]), len(NOUNS))
    return verb, noun
