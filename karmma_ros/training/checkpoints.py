"""Checkpoints from which a run goes on as if it had never been stopped."""

from __future__ import annotations

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
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingStopped(KarmmaError):
    """Somebody stopped the run; nothing of it is lost."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step
        super().__init__(f'stopped after step {step}; the same command goes on from {path}')


class CheckpointError(KarmmaError):
    """A checkpoint cannot be written; what was written before it is whole."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path, self.error = path, error
        remedy = 'free some space' if error.errno in DISK_FULL else 'see to the folder'
        before = 'the one before it is whole' if path.exists() else 'there is none before it'
        super().__init__(f'checkpoint {path} cannot be written ({error.strerror or error}); '
                         f'{before}: {remedy} and give the same command again')


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Read a checkpoint of tensors and plain values; no code in it is run.

    :raises InvalidSettingError: for a file that is not one of `ResumeCheckpoint`'s.
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


def _no_checkpoint(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'checkpoint', str(path), 'a checkpoint of karmma train, of tensors and plain values',
        f'{problem[:200]}; delete it to train from the beginning, or give '
        'another --run-dir')


class ResumeCheckpoint(Callback):
    """
    Write `last.ckpt` after every epoch, after so many minutes, and when the run is stopped.

    Always between two steps of the optimiser, and to another file first, so that a run killed
    at any moment finds a whole one. The first interrupt waits for the end of the step.

    :raises TrainingStopped: at the end of the step in which an interrupt came.
    :raises CheckpointError: when the disk does not take it.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.path = folder / CHECKPOINT
        self._seconds = 60 * minutes
        self._kept = time.monotonic()
        self._stop = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Take over the signals that stop a run."""
        self._kept = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._ask_to_stop) for s in _SIGNALS}

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        self._stop = True
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, *rest: Any
    ) -> None:
        """Keep what there is, if it is time and the step is whole."""
        parts = trainer.accumulate_grad_batches
        due = time.monotonic() - self._kept >= self._seconds
        if (self._stop or due) and (rest[-1] + 1) % parts == 0:
            self._keep(trainer)
            if self._stop:
                raise TrainingStopped(self.path, trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the epoch."""
        self._keep(trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Return the signals back."""
        self._give_back()

    def _keep(self, trainer: lightning.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path)
        except OSError as error:
            raise CheckpointError(self.path, error) from error
        self._kept = time.monotonic()
