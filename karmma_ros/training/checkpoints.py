"""Checkpoints from which a run resumes exactly where it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
import signal
import threading
import time
from typing import Any

from karmma_ros.errors import DISK_FULL, first_line, InvalidSettingError, KarmmaError
from karmma_ros.files import open_regular
import lightning
from lightning.pytorch.callbacks import Callback
import torch

CHECKPOINT = 'last.ckpt'
"""Name of the checkpoint, in the folder of the run, that a later run resumes from."""
_RUN = 'karmma_run'
"""Key of what decides the run, in a checkpoint."""
_MOST_SHOWN = 60
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStopped(KarmmaError):
    """The run was stopped; a checkpoint of its last step is written."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step
        super().__init__(f'stopped after step {step}; the same command resumes from {path}')


class CheckpointError(KarmmaError):
    """A checkpoint cannot be written; the previous one is intact."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path, self.error = path, error
        remedy = 'free some space' if error.errno in DISK_FULL else 'check the folder'
        before = 'the previous one is intact' if path.exists() else 'there is no previous one'
        super().__init__(f'checkpoint {path} cannot be written ({error.strerror or error}); '
                         f'{before}: {remedy} and give the same command again')


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Read a checkpoint of tensors and plain values; no code in it is run.

    :raises InvalidSettingError: for a file that `ResumeCheckpoint` did not write.
    """
    try:
        with open_regular(path) as file:
            content = torch.load(file, map_location='cpu', weights_only=True)
    except (UnpicklingError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise _no_checkpoint(path, first_line(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get('state_dict'), dict) \
            or not isinstance(content.get('global_step'), int):
        raise _no_checkpoint(path, 'it lacks state_dict or global_step')
    return content


def check_run(path: Path, content: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """
    Check that a checkpoint is of the run that would resume from it.

    :param content: of the checkpoint.
    :param facts: all that decides the run, by name, plain values.
    :raises InvalidSettingError: for one of other settings, data or weights.
    """
    before = content.get(_RUN)
    if before is None:
        print(f'warning: {path} is of a version that did not store what decides a run: whether '
              'settings and data are the same was not checked')
        return
    names = [name for name in {**facts, **before} if before.get(name) != facts.get(name)]
    if names:
        name = names[0]
        others = f', and so do {", ".join(names[1:])}' if len(names) > 1 else ''
        raise InvalidSettingError(
            '--run-dir', str(path.parent), f'a folder without a run, or with one of the same '
            f'settings and data; {name} differs: there {_short(before.get(name))}, here '
            f'{_short(facts.get(name))}{others}',
            'give another --run-dir, or delete this one to train from the beginning')


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f'{text[:_MOST_SHOWN]}…'


def _no_checkpoint(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'checkpoint', str(path), 'a checkpoint of karmma train, of tensors and plain values',
        f'{problem[:200]}; delete it to train from the beginning, or give '
        'another --run-dir')


class ResumeCheckpoint(Callback):
    """
    Write `last.ckpt` after every epoch, every few minutes, and when the run is stopped.

    Only between two optimizer steps, and to a temporary file first, so that a run that is
    killed leaves an intact checkpoint. The first interrupt waits for the end of the step.
    `ModelCheckpoint` may write in the middle of a step whose gradients are accumulated.

    :raises TrainingStopped: at the end of the step in which the interrupt came.
    :raises CheckpointError: when the disk is full or the folder cannot be written to.
    """

    def __init__(
        self, folder: Path, minutes: float, facts: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Prepare.

        :param facts: what decides the run, as for `check_run`.
        """
        self._facts = dict(facts or {})
        self.path = folder / CHECKPOINT
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self._stop_requested = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Take over the signals that stop a run."""
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._request_stop) for s in _SIGNALS}

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Store what decides the run."""
        checkpoint[_RUN] = self._facts

    def _request_stop(self, number: int, frame: Any) -> None:
        self._stop_requested = True
        self._restore_signals()

    def _restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, *rest: Any
    ) -> None:
        """Save when it is time and the step is complete."""
        batches = trainer.accumulate_grad_batches
        due = time.monotonic() - self._saved >= self._seconds
        if (self._stop_requested or due) and (rest[-1] + 1) % batches == 0:
            self._save(trainer)
            if self._stop_requested:
                raise TrainingStopped(self.path, trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Save after each epoch."""
        self._save(trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Restore the signal handlers."""
        self._restore_signals()

    def _save(self, trainer: lightning.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path)
        except OSError as error:
            raise CheckpointError(self.path, error) from error
        self._saved = time.monotonic()
