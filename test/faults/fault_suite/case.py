"""What a case is: a fault, what is done, and demands that can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
import time
import traceback
from typing import Any


@dataclass(frozen=True)
class Demand:
    """One thing asked for, and what came out."""

    what: str
    came: str
    held: bool


@dataclass
class Trial:
    """What one run of a case finds."""

    demands: list[Demand] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Numbers for the JSON file, by name."""
    done: str = ''
    """What was really done, where the case's own text cannot say it beforehand."""

    def demand(self, what: str, held: Any, came: object) -> bool:
        """Note whether a demand holds and what was seen; tell whether it holds."""
        self.demands.append(Demand(what, str(came), bool(held)))
        return bool(held)

    @property
    def held(self) -> bool:
        """Return whether every demand held; a trial without any has shown nothing."""
        return bool(self.demands) and all(demand.held for demand in self.demands)

    @property
    def failures(self) -> list[Demand]:
        """Return the demands that did not hold."""
        return [demand for demand in self.demands if not demand.held]


@dataclass(frozen=True)
class Case:
    """A fault that can be done at several sizes."""

    name: str
    title: str
    done: str
    """What is done, with the settings' names in braces."""
    act: Callable[..., None]
    """Takes the trial and the settings."""
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    """Settings that replace some of `full` where there is little time."""
    limit_s: float
    """A run that takes longer hangs, which is a failure."""

    def settings(self, quick: bool = False, **changes: Any) -> dict[str, Any]:
        """Return the settings of a size, with changes."""
        return {**self.full, **(self.quick if quick else {}), **changes}

    def run(self, **settings: Any) -> Trial:
        """Run it; an exception is a demand that failed."""
        trial = Trial(done=self.done.format(**settings))
        try:
            self.act(trial, **settings)
        except Exception as error:
            traceback.print_exc()
            trial.demand('the case runs to its end', False, f'{type(error).__name__}: {error}')
        return trial

    def record(self, quick: bool) -> dict[str, Any]:
        """Run it at one size and give what belongs into the JSON file."""
        settings, started = self.settings(quick), time.monotonic()
        trial = self.run(**settings)
        return entry(self, trial, quick, time.monotonic() - started, settings)


def entry(
    case: Case, trial: Trial, quick: bool, seconds: float, settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one case's part of the JSON file."""
    return {
        'title': case.title, 'done': trial.done, 'held': trial.held, 'quick': quick,
        'seconds': round(seconds, 1), 'settings': dict(settings),
        'demands': [asdict(demand) for demand in trial.demands], 'figures': trial.figures,
    }


def case(
    name: str, title: str, done: str, *, full: Mapping[str, Any] | None = None,
    quick: Mapping[str, Any] | None = None, limit_s: float = 300.0,
) -> Callable[[Callable[..., None]], Case]:
    """Make a case of the function that does it."""
    def make(act: Callable[..., None]) -> Case:
        return Case(name, title, done, act, dict(full or {}), dict(quick or {}), limit_s)
    return make
