"""
Where an evaluation keeps what it has found, so that a stopped one goes on.

A folder for each bag and setting holds the answers in parts, as they come, and in one file when
the bag is done. A bag that was stopped is read again from its start, for what the sensors hold
depends on all before; but what the network has answered it is not asked again, unless it
remembers what came before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from karmma_ros.bags.bag_run import BagInfo
from karmma_ros.bags.limits import size_of
from karmma_ros.evaluation.predictions import (
    BagPredictions,
    load_conditions,
    PredictionsError,
    save_conditions,
)
from karmma_ros.files import open_regular

_PORTION = 1 << 20
_FACTS, _ANSWERS = 'facts.json', 'answers.npz'


def bag_digest(files: Sequence[Path]) -> str:
    """
    Return a digest of the names and of every byte of some files.

    Nothing less will do: a bag that was repaired or anonymised in place has the size and, if the
    tool restores it, the time of the old one. Folders do not count: a bag may be moved.

    :raises ValueError: for what is no regular file.
    """
    digest = hashlib.sha256()
    for path in files:
        with open_regular(path) as file:
            digest.update(b'%d %s %d ' % (
                len(os.fsencode(path.name)), os.fsencode(path.name), size_of(file)))
            while portion := file.read(_PORTION):
                digest.update(portion)
    return digest.hexdigest()


def file_states(files: Sequence[Path]) -> list[tuple[int, ...]]:
    """Return what changes whenever a file is written to, for each file."""
    found = [path.stat() for path in files]
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found]


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the name of the folder for these facts, JSON-ready."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ResumableRun:
    """The folder of one bag under one setting."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """
        Take the folder, which may be there already, and the names of what is answered.

        :param names: file-safe, one for each condition, in order.
        """
        self.folder, self._names = folder, tuple(names)
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = self._found()

    @property
    def batches(self) -> int:
        """Count the batches that were answered before."""
        return sum(count for _, count in self._parts)

    def add(self, batches: int, answers: Mapping[str, BagPredictions]) -> None:
        """Keep the answers to some more batches."""
        path = self.folder / f'part_{len(self._parts):06d}_{batches}.npz'
        save_conditions(path, answers)
        self._parts.append((path, batches))

    def finish(self, facts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
        """Put all together: from here on the bag is done."""
        parts = [load_conditions(path) for path, _ in self._parts]
        joined = {}
        for name in self._names:
            answers = BagPredictions.concatenate([part[name] for part in parts if name in part])
            joined[name] = answers.with_states(states[name])
        save_conditions(self.folder / _ANSWERS, joined)
        text = json.dumps(facts, indent=1, sort_keys=True)
        partial = self.folder / f'{_FACTS}.partial'
        partial.write_text(text + '\n', encoding='utf-8')
        os.replace(partial, self.folder / _FACTS)
        for path, _ in self._parts:
            path.unlink(missing_ok=True)
        self._parts = []

    def done(self) -> tuple[dict[str, Any], dict[str, BagPredictions]] | None:
        """Return facts and answers of a bag that is done; None when it is not."""
        try:
            facts = json.loads((self.folder / _FACTS).read_text(encoding='utf-8'))
            answers = load_conditions(self.folder / _ANSWERS)
        except (OSError, ValueError, PredictionsError):
            return None
        return (facts, answers) if set(self._names) <= set(answers) else None

    def _found(self) -> list[tuple[Path, int]]:
        """Return the parts that are whole, as far as they follow each other."""
        found = []
        for number, path in enumerate(sorted(self.folder.glob('part_*.npz'))):
            try:
                place, batches = (int(text) for text in path.stem.split('_')[1:])
                load_conditions(path)
            except (ValueError, PredictionsError):
                break
            if place != number:
                break
            found.append((path, batches))
        for path in set(self.folder.glob('part_*.npz')) - {path for path, _ in found}:
            path.unlink()
        return found


def info_dict(info: BagInfo) -> dict[str, Any]:
    """Return the facts of a bag, JSON-ready."""
    return asdict(info)


def info_of(facts: Mapping[str, Any]) -> BagInfo:
    """Return them back."""
    return BagInfo(**facts)
