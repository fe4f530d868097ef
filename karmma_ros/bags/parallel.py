"""Evaluate many bags: in this process, or by workers that each load the model once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Union

from karmma_ros.bags.evaluate import evaluate_bag, EvaluatedBag, Settings
from karmma_ros.cluster.bucket import BucketCache, default_folder, url_of
from karmma_ros.cluster.engine import check_shared, map_tasks, Workers, WorkerStoppedError
from karmma_ros.errors import BagError, DISK_FULL, KarmmaError
from karmma_ros.model.bundle import Bundle, load_bundle
import torch

BagProgress = Callable[[int, int, int], None]
"""Called with the index of a bag, how much of it is done, and its total."""
Outcome = Union[EvaluatedBag, KarmmaError]
"""The results of a bag, or why there are none."""


@dataclass(frozen=True)
class Job:
    """The evaluation of every bag."""

    model: Path
    settings: Settings
    run_dir: Path
    device: str = 'cpu'
    threads: int = 0
    """CPU threads of each network; 0 for torch's default."""
    custom_encoders: bool = False
    buckets: BucketCache = field(default_factory=lambda: BucketCache(default_folder()))
    """Where bags of `s3://` and other buckets are kept."""


def evaluate_all(
    paths: Sequence[Path], job: Job, workers: Workers,
    progress: BagProgress = lambda index, done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """
    Evaluate bags; an error in one does not stop the others.

    :param note: called with a sentence when a worker ends.
    :raises KarmmaError: when the model cannot be loaded, or there is no such cluster.
    :raises OSError: when the disk is full.
    """
    outcomes = map_tasks(
        partial(_evaluate, job), paths, partial(_load, job), workers, progress=progress, note=note)
    return [outcome.of_bag(path) if isinstance(outcome, WorkerStoppedError) else outcome
            for path, outcome in zip(paths, outcomes)]


def _load(job: Job) -> Bundle:
    for setting, folder in ('--out', job.run_dir.parent), ('--model', job.model):
        check_shared(setting, folder)
    if job.threads:
        torch.set_num_threads(job.threads)
    return load_bundle(job.model, job.device, custom_encoders=job.custom_encoders)


def _evaluate(
    job: Job, bundle: Bundle, path: Path, progress: Callable[[int, int], None],
) -> EvaluatedBag:
    try:
        with job.buckets.local(path) as local:
            evaluated = evaluate_bag(
                local, bundle, job.settings, job.run_dir, progress, job.device)
        url = url_of(path)
        return replace(evaluated, info=replace(evaluated.info, path=url)) if url else evaluated
    except KarmmaError:
        raise
    except Exception as error:  # a hostile file may break a library anywhere
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        last = extract_tb(error.__traceback__)[-1]
        raise BagError(
            path, f'it cannot be evaluated ({type(error).__name__}: {error}, in '
            f'{Path(last.filename).name}:{last.lineno})',
            'check the file; if it is intact, this is an error of karmma_ros: report it'
        ) from error
