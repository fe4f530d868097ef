"""Many bags at once, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
import signal
import threading
from traceback import extract_tb
from typing import Any, Union

from karmma_ros.bags.evaluate import evaluate_bag, Evaluated, Settings
from karmma_ros.errors import BagError, DISK_FULL, KarmmaError
from karmma_ros.model.bundle import Bundle, load_bundle
import torch

_LOOK_S = 0.2

Told = Callable[[int, int, int], None]
"""Called with the place of a bag, what of it is done, and all of it."""
Outcome = Union[Evaluated, KarmmaError]
"""What was found in a bag, or why nothing was."""


@dataclass(frozen=True)
class Job:
    """What is done to every bag."""

    model: Path
    settings: Settings
    work: Path
    device: str = 'cpu'
    threads: int = 0
    """CPU threads of each network; 0 leaves torch's choice."""
    custom_encoders: bool = False


def evaluate_all(
    paths: Sequence[Path], job: Job, jobs: int, told: Told = lambda place, done, total: None,
) -> list[Outcome]:
    """
    Evaluate bags, so many at a time; whatever goes wrong with one, the others are evaluated.

    :raises KarmmaError: when the model cannot be loaded.
    :raises OSError: when the disk is full.
    """
    if jobs == 1 or len(paths) == 1:
        bundle = _prepared(job)
        return [_one(path, bundle, job, _teller(told, place)) for place, path in enumerate(paths)]
    return _in_processes(paths, job, min(jobs, len(paths)), told)


def _teller(told: Told, place: int) -> Callable[[int, int], None]:
    return lambda done, total: told(place, done, total)


def _prepared(job: Job) -> Bundle:
    if job.threads:
        torch.set_num_threads(job.threads)
    return load_bundle(job.model, job.device, custom_encoders=job.custom_encoders)


def _one(path: Path, bundle: Bundle, job: Job, told: Callable[[int, int], None]) -> Outcome:
    try:
        return evaluate_bag(path, bundle, job.settings, job.work, told, job.device)
    except KarmmaError as error:
        return error
    except Exception as error:  # a hostile file may break a library anywhere
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        last = extract_tb(error.__traceback__)[-1]
        return BagError(
            path, f'it cannot be evaluated ({type(error).__name__}: {error}, in '
            f'{Path(last.filename).name}:{last.lineno})',
            'check the file; if it is intact, this is an error of karmma_ros: report it')


def _in_processes(paths: Sequence[Path], job: Job, jobs: int, told: Told) -> list[Outcome]:
    # Not forked: torch's threads would not survive that.
    context = get_context('spawn')
    with context.Manager() as manager:
        news = manager.Queue()
        found = _in_pool(dict(enumerate(paths)), job, jobs, context, news, told)
        for place, path in enumerate(paths):
            if place not in found:  # a process ended; which bag ended it shows when it is alone
                found |= _in_pool({place: path}, job, 1, context, news, told)
        return [found.get(place) or _ended(path) for place, path in enumerate(paths)]


def _in_pool(
    paths: Mapping[int, Path], job: Job, jobs: int, context: Any, news: Any, told: Told,
) -> dict[int, Outcome]:
    """Evaluate bags by their places; those that were not done when a process ended are left."""
    with ProcessPoolExecutor(jobs, context, _start, (job, news)) as pool:
        futures: dict[int, Future[Outcome]] = {}
        try:
            with suppress(BrokenProcessPool):
                for place, path in paths.items():
                    futures[place] = pool.submit(_work, place, path)
            while wait(futures.values(), timeout=_LOOK_S).not_done:
                _pass_on(news, told)
            _pass_on(news, told)
        except BaseException:
            _abandon(pool, list(futures.values()))
            raise
        return {place: future.result() for place, future in futures.items()
                if not isinstance(future.exception(), BrokenProcessPool)}


def _ended(path: Path) -> BagError:
    return BagError(path, 'the process that evaluated it was ended by the system',
                    'free some memory, or give a smaller --jobs')


def _pass_on(news: Any, told: Told) -> None:
    while True:
        try:
            told(*news.get_nowait())
        except Empty:
            return


def _abandon(pool: ProcessPoolExecutor, futures: Sequence[Future[Outcome]]) -> None:
    """End what runs: it goes on from its work folder another time."""
    for future in futures:
        future.cancel()
    for process in list((getattr(pool, '_processes', None) or {}).values()):
        process.terminate()


_own: dict[str, Any] = {}
"""What a process keeps from bag to bag."""


def _start(job: Job, news: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    _own.update(job=job, news=news)


def _work(place: int, path: Path) -> Outcome:
    if 'bundle' not in _own:  # not in _start, whose failure would say nothing
        try:
            _own['bundle'] = _prepared(_own['job'])
        except KarmmaError as error:
            return error
    last = -1

    def told(done: int, total: int) -> None:
        nonlocal last
        share = 100 * done // total
        if share != last:
            last = share
            _own['news'].put((place, done, total))
    return _one(path, _own['bundle'], _own['job'], told)
