"""The results of the reproduction, one JSON file from which every table and figure is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import Any

from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.robustness import average_accuracy, curve_of_column
from karmma_ros.evaluation.schema import to_json
from karmma_ros.reproduce.experiments import ExperimentResult
from karmma_ros.reproduce.systems import seeded
from karmma_ros.storage import write_atomically

FORMAT = 'karmma_ros.results/2'
SCHEMA_ID = 'karmma_ros.results.2.schema.json'
FULL = 'V+F+A+D'
"""The subset of all modalities."""


class ResultsError(KarmmaError):
    """A file of results cannot be used."""


@dataclass(frozen=True)
class SystemCost:
    """The cost of one system by subset of its modalities."""

    gflops: Mapping[str, float]
    bytes: Mapping[str, int] | None = None
    """The tensors that live at once at inference."""


@dataclass(frozen=True)
class TokenCapCost:
    """The cost of a teacher with a cap on the tokens of a modality (Table V)."""

    gflops: float
    fusion_bytes: int
    """What the fusion block keeps for its backward pass."""


@dataclass(frozen=True)
class Costs:
    """Computed costs; nothing of them depends on training."""

    systems: Mapping[str, SystemCost]
    token_caps: Mapping[str, TokenCapCost]
    """Cap, or `none`, → cost."""


@dataclass
class Results:
    """The content of `results.json`."""

    format: str
    budget: str
    settings: Mapping[str, Any]
    """The budget's."""
    provenance: Mapping[str, str]
    """Command, date and machine, in words."""
    costs: Costs
    experiments: dict[str, ExperimentResult] = field(default_factory=dict)

    def seeds(self, system: str) -> list[ExperimentResult]:
        """Return the results of a system, one for each seed that is done."""
        results, seed = [], 0
        while seeded(system, seed) in self.experiments:
            results.append(self.experiments[seeded(system, seed)])
            seed += 1
        return results

    def columns(self, system: str) -> list[dict[str, float]]:
        """Return a system's columns of Table I, subset → action accuracy, one for each seed."""
        return [{subset: each['action'] for subset, each in (result.top1 or {}).items()}
                for result in self.seeds(system)]

    def full(self, system: str, key: str = 'action') -> list[float]:
        """Return the accuracy with all that a system takes, for each seed."""
        return [result.accuracy(key=key) for result in self.seeds(system)]

    def averages(self, system: str) -> list[float]:
        """Return the mean accuracy over the subsets, for each seed."""
        return [average_accuracy(column) for column in self.columns(system)]

    def curves(self, system: str) -> list[list[float]]:
        """Return the accuracy at each dropout probability (Fig. 4), for each seed."""
        return [curve_of_column(column) for column in self.columns(system)]

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_atomically(path, json.dumps(to_json(self, digits=None), indent=1) + '\n')

    @classmethod
    def load(cls, path: Path) -> Results:
        """
        Read what `save` wrote.

        :raises ResultsError: when the file is damaged or of another version.
        """
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            if content['format'] != FORMAT:
                raise ValueError(f'format is {content["format"]}; expected {FORMAT}')
            costs = content['costs']
            return cls(**{
                **content,
                'costs': Costs({n: SystemCost(**c) for n, c in costs['systems'].items()},
                               {n: TokenCapCost(**c) for n, c in costs['token_caps'].items()}),
                'experiments': {n: ExperimentResult(**each)
                                for n, each in content['experiments'].items()}})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(
                f'results {path}: cannot be read ({error}): move the file away, and what is in '
                'the cache will be used again') from error


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return sum(values) / len(values) if values else float('nan')
