"""A case: a fault, how it is injected, and requirements that can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
import time
import traceback
from typing import Any


@dataclass(frozen=True)
class Requirement:
    """A requirement, and what was observed."""

    requirement: str
    observed: str
    passed: bool


@dataclass
class Trial:
    """The outcome of one run of a case."""

    requirements: list[Requirement] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Numbers for the JSON file, by name."""
    description: str = ''
    """What was done, where it is known only after the run."""

    def require(self, requirement: str, passed: Any, observed: object) -> bool:
        """Record whether a requirement holds and what was observed; return whether it holds."""
        self.requirements.append(Requirement(requirement, str(observed), bool(passed)))
        return bool(passed)

    @property
    def passed(self) -> bool:
        """Return whether every requirement holds; a trial without any does not pass."""
        return bool(self.requirements) and all(each.passed for each in self.requirements)

    @property
    def failures(self) -> list[Requirement]:
        """Return the requirements that do not hold."""
        return [each for each in self.requirements if not each.passed]


@dataclass(frozen=True)
class Case:
    """A fault that can be injected at several sizes."""

    name: str
    title: str
    description: str
    """What is done, with the settings' names in braces."""
    act: Callable[..., None]
    """Takes the trial and the settings."""
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    """Settings that replace some of `full` where there is little time."""
    limit_s: float
    """A longer run counts as hanging, which is a failure."""

    def settings(self, quick: bool = False, **changes: Any) -> dict[str, Any]:
        """Return the settings of a size, with changes."""
        return {**self.full, **(self.quick if quick else {}), **changes}

    def run(self, **settings: Any) -> Trial:
        """Run it; an exception is a requirement that failed."""
        trial = Trial(description=self.description.format(**settings))
        try:
            self.act(trial, **settings)
        except Exception as error:
            traceback.print_exc()
            trial.require('the case completes', False, f'{type(error).__name__}: {error}')
        return trial

    def record(self, quick: bool) -> dict[str, Any]:
        """Run it at one size and return its part of the JSON file."""
        settings, started = self.settings(quick), time.monotonic()
        trial = self.run(**settings)
        return entry(self, trial, quick, time.monotonic() - started, settings)


def entry(
    case: Case, trial: Trial, quick: bool, seconds: float, settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one case's part of the JSON file."""
    return {
        'title': case.title,
        'description': trial.description, 'passed': trial.passed, 'quick': quick,
        'seconds': round(seconds, 1), 'settings': dict(settings),
        'requirements': [asdict(each) for each in trial.requirements],
        'figures': trial.figures,
    }


def case(
    name: str, title: str, description: str, *, full: Mapping[str, Any] | None = None,
    quick: Mapping[str, Any] | None = None, limit_s: float = 300.0,
) -> Callable[[Callable[..., None]], Case]:
    """Make a case of a function."""
    def make(act: Callable[..., None]) -> Case:
        return Case(name, title, description, act, dict(full or {}), dict(quick or {}), limit_s)
    return make
