"""Classes of a truth by name or number, and numbers that contradict the names beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import re

UNKNOWN = -1
"""The class id of what the model has no name for, or the truth does not mention."""
_NUMBER = re.compile(r'\d{1,6}(\.0+)?', re.ASCII)
_MOST_SLIPS = 0.1
"""Above this fraction of contradictions the numbers are those of another vocabulary."""


class ClassNames:
    """Find classes by name, by a name that differs in spelling only, or by id."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._exact = {name: i for i, name in enumerate(names)}
        spelt: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            spelt.setdefault(_spelling(name), []).append(i)
        self._spelt = {key: ids[0] for key, ids in spelt.items() if len(ids) == 1}

    def __call__(self, text: str) -> tuple[str, int]:
        """Return the name and id in a truth."""
        found = self.named(text)
        if found == UNKNOWN and self.is_number(text):
            number = int(float(text))
            found = number if number < len(self._names) else UNKNOWN
        return (text, UNKNOWN) if found == UNKNOWN else (self._names[found], found)

    def __len__(self) -> int:
        return len(self._names)

    def named(self, text: str) -> int:
        """Return the id of the class of this name."""
        return self._exact.get(text, self._spelt.get(_spelling(text), UNKNOWN))

    def is_number(self, text: str) -> bool:
        """Whether a text is a class id and not a name."""
        return self.named(text) == UNKNOWN and _NUMBER.fullmatch(text) is not None

    def split(self, cells: Sequence[str]) -> tuple[str, str]:
        """Return the name and the number among the cells of a row; '' where there is none."""
        words = [cell for cell in cells if cell and not self.is_number(cell)]
        name = next((word for word in words if self.named(word) != UNKNOWN), '')
        number = next((cell for cell in cells if self.is_number(cell)), '')
        return name or next(iter(words), ''), number


class Labels:
    """
    The labels of one head: of a name and a number in one row, the name decides.

    A number counts where its row has no name, or one that is no class of the model, unless the
    numbers are those of another vocabulary.
    """

    def __init__(
        self, pairs: Sequence[tuple[str, str]], classes: ClassNames, head: str,
        names_only: bool = False,
    ) -> None:
        """
        Compare the rows.

        :param pairs: name and number of each row, '' where it has none.
        :param names_only: take no number: those of the rows belong to another vocabulary.
        """
        self._classes, self._head = classes, head
        self._pairs = pairs
        both = [(name, number) for name, number in pairs if name and number]
        self._compared = [each for each in both if classes.named(each[0]) != UNKNOWN]
        self._wrong = [each for each in self._compared
                       if classes.named(each[0]) != int(float(each[1]))]
        self._is_unchecked = bool(both) and not self._compared
        self._names_only = names_only
        self._is_foreign = len(self._wrong) > _MOST_SLIPS * len(self._compared)

    def texts(self) -> list[str]:
        """Return what stands for the class of each row."""
        return [self._text(name, number) for name, number in self._pairs]

    def remarks(self, source: str, is_trusted: bool = False) -> Iterator[str]:
        """
        Describe contradictions between names and numbers.

        :param is_trusted: the numbers are known to be those of the model's vocabulary.
        """
        if self._wrong:
            name, number = self._wrong[0]
            known, i = self._classes(number)
            theirs = f'is {known!r}' if i != UNKNOWN else 'does not exist'
            use = ('no number is used: they are those of another vocabulary' if self._is_foreign
                   else 'a number is used only where the name is no class of the model')
            yield (f'{source}: {len(self._wrong):,} of {len(self._compared):,} numbers of '
                   f'{self._head} contradict the names beside them, the first: {name!r} has '
                   f'number {number}, which in the model {theirs}; the names are used, {use}')
        elif self._is_unchecked and not self._names_only and not is_trusted:
            yield (f'{source}: no name of {self._head} is a class of the model: the numbers '
                   'beside them are used, unchecked')
        beyond = [number for name, number in self._pairs
                  if number and not name and int(float(number)) >= len(self._classes)]
        if beyond:
            yield (f'{source}: {len(beyond):,} numbers of {self._head} are beyond the '
                   f'{len(self._classes)} classes of the model, the first: {beyond[0]}; if they '
                   'are those of another vocabulary, the others are wrong too: give names')

    def _text(self, name: str, number: str) -> str:
        is_usable = number and not self._is_foreign and not self._names_only
        if not name:
            return number if is_usable or not number else f'number {number}'
        if self._classes.named(name) != UNKNOWN or not is_usable:
            return name
        return number if self._classes(number)[1] != UNKNOWN else name


def _spelling(name: str) -> str:
    return re.sub(r'[\s_-]+', '-', name.strip().casefold())
