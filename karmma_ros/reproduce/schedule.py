"""Makes cells in processes of their own, each as soon as what it needs is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
import logging
import multiprocessing
import os
import signal
from typing import Any
import warnings

from karmma_ros.reproduce.cells import Cell, Workshop
import torch

Made = Callable[[str, Mapping[str, Any]], None]


def with_needs(wanted: Iterable[str], cells: Mapping[str, Cell]) -> list[str]:
    """Give the wanted cells and all that they need, in the order of `cells`."""
    found: set[str] = set()
    open_ones = list(wanted)
    while open_ones:
        name = open_ones.pop()
        if name not in found:
            found.add(name)
            open_ones += cells[name].needs
    return [name for name in cells if name in found]


def make_all(
    workshop: Workshop, cells: Mapping[str, Cell], names: Iterable[str], jobs: int, made: Made
) -> None:
    """
    Make cells, `jobs` at a time; the first that fails stops the rest.

    :param names: with all that they need (`with_needs`).
    :param made: called with name and result of each.
    """
    waiting = list(names)
    done: set[str] = set()
    running: dict[Future[dict[str, Any]], str] = {}
    # Not fork: torch's threads would not survive it.
    context = multiprocessing.get_context('spawn')
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, context, initializer=_prepare, initargs=(threads,))
    try:
        while waiting or running:
            for name in [n for n in waiting if done.issuperset(cells[n].needs)]:
                if len(running) == jobs:
                    break
                waiting.remove(name)
                running[pool.submit(workshop.make, name)] = name
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name = running.pop(future)
                made(name, future.result())
                done.add(name)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(threads: int) -> None:
    # An interrupt stops a training between two steps (its Keeper sees to it); what follows the
    # training takes seconds and is finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', module='lightning')
