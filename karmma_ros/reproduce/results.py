"""What the reproduction found, as one JSON file from which every table and picture is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import Any

from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.robustness import average_accuracy, POINTS, subset_probabilities
from karmma_ros.modality import Modality
from karmma_ros.reproduce.systems import seeded

FORMAT = 'karmma_ros/results/1'
FULL = 'V+F+A+D'
"""The subset that has all sensors."""
Column = Mapping[str, float]
"""Subset → action accuracy, 0 to 1."""


class ResultsError(KarmmaError):
    """A file of results cannot be used."""


@dataclass
class Results:
    """The results of cells, and what made them."""

    budget: str
    settings: Mapping[str, Any]
    made: Mapping[str, str] = field(default_factory=dict)
    """Command, date, machine and so on, in words."""
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Cell → `key`, `top1` (subset → head → accuracy), `minutes`, `trained`."""
    costs: dict[str, Any] = field(default_factory=dict)
    """Preset → `gflops` and `bytes` by subset; `tokens` → Table V's."""

    def seeds(self, system: str) -> list[dict[str, Any]]:
        """Return the results of a system, one for each seed that was made."""
        found, seed = [], 0
        while seeded(system, seed) in self.cells:
            found.append(self.cells[seeded(system, seed)])
            seed += 1
        return found

    def columns(self, system: str) -> list[dict[str, float]]:
        """Return a system's columns of Table I, one for each seed."""
        return [{s: found['action'] for s, found in cell['top1'].items()}
                for cell in self.seeds(system)]

    def full(self, system: str, key: str = 'action') -> list[float]:
        """Return the accuracy with all that a system takes, for each seed."""
        return [next(iter(cell['top1'].values()))[key] for cell in self.seeds(system)]

    def averages(self, system: str) -> list[float]:
        """Return the mean accuracy over the subsets, for each seed."""
        return [average_accuracy(column) for column in self.columns(system)]

    def curves(self, system: str) -> list[list[float]]:
        """Return the accuracy for each probability of dropping (Fig. 4), for each seed."""
        return [[dropped(column, point) for point in POINTS] for column in self.columns(system)]

    def save(self, path: Path) -> None:
        """Write the file; it is there whole or not at all."""
        content = {'format': FORMAT, 'budget': self.budget, 'settings': self.settings,
                   'made': self.made, 'costs': self.costs, 'cells': self.cells}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + '.partial')
        partial.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """
        Read what `save` wrote.

        :raises ResultsError: when the file is damaged or of another version.
        """
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            if content.pop('format') != FORMAT:
                raise ValueError('another format')
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultsError(
                f'results {path}: cannot be read ({error}): move the file away, and what is in '
                'the cache will be used again') from error


def dropped(column: Column, point: float) -> float:
    """Return the expected accuracy where every clip has all sensors and each is then dropped."""
    return sum(chance * column[subset]
               for subset, chance in subset_probabilities(Modality, point).items())


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return sum(values) / len(values) if values else float('nan')
