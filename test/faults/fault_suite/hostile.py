"""Model directories that are damaged, or built to attack the program that loads them."""

from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
import pickle
import shutil
import struct
from typing import Any

from karmma_ros.model.bundle import CONFIG, WEIGHTS


class CodeOnUnpickling:
    """An object that runs code when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def corrupt(model: Path) -> None:
        description = json.loads((model / CONFIG).read_text())
        change(description)
        (model / CONFIG).write_text(json.dumps(description))
    return corrupt


def _truncated(name: str, part: float) -> Callable[[Path], None]:
    return lambda model: os.truncate(model / name, int((model / name).stat().st_size * part))


def _replaced(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def corrupt(model: Path) -> None:
        (model / name).unlink()
        make(model / name)
    return corrupt


def _header_length(length: int) -> Callable[[Path], None]:
    def corrupt(model: Path) -> None:
        data = bytearray((model / WEIGHTS).read_bytes())
        data[:8] = struct.pack('<Q', length)
        (model / WEIGHTS).write_bytes(data)
    return corrupt


def _header(make: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Write another header before the same weights."""
    def corrupt(model: Path) -> None:
        data = (model / WEIGHTS).read_bytes()
        length, = struct.unpack('<Q', data[:8])
        header = json.dumps(make(json.loads(data[8:8 + length]))).encode()
        (model / WEIGHTS).write_bytes(struct.pack('<Q', len(header)) + header + data[8 + length:])
    return corrupt


def _huge_tensor(header: dict[str, Any]) -> dict[str, Any]:
    header['huge'] = {'dtype': 'F32', 'shape': [2 ** 40], 'data_offsets': [0, 2 ** 42]}
    return header


def _text(name: str, text: Callable[[], str]) -> Callable[[Path], None]:
    return lambda model: (model / name).write_text(text())


def _pickle(model: Path) -> None:
    (model / WEIGHTS).write_bytes(pickle.dumps(CodeOnUnpickling(witness(model))))


def _torch_pickle(model: Path) -> None:
    import torch
    torch.save({'weights': CodeOnUnpickling(witness(model))}, model / WEIGHTS)


def witness(model: Path) -> Path:
    """Return the file that appears if code from the model directory is run."""
    return model.with_name(model.name + '.ran')


def _first_encoder(change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def edit(description: dict[str, Any]) -> None:
        next(iter(description['architecture']['encoders'].values())).update(change)
    return edit


def _architecture(**values: Any) -> Callable[[Path], None]:
    return _edit(lambda description: description['architecture'].update(values))


def _clip(**values: Any) -> Callable[[Path], None]:
    return _edit(lambda description: description['clip'].update(values))


def _classes(values: Any) -> Callable[[Path], None]:
    return _edit(lambda description: description.update(classes=values))


CORRUPTIONS: dict[str, Callable[[Path], None]] = {
    'weights truncated to half': _truncated(WEIGHTS, 0.5),
    'weights truncated by one byte': lambda model: os.truncate(
        model / WEIGHTS, (model / WEIGHTS).stat().st_size - 1),
    'weights empty': _truncated(WEIGHTS, 0),
    'weights missing': lambda model: (model / WEIGHTS).unlink(),
    'weights are a pickle that runs code': _pickle,
    'weights are a torch file that runs code': _torch_pickle,
    'weights’ header of 8 EB': _header_length(2 ** 63 - 1),
    'weights’ header of 100 GB': _header_length(100 * 10 ** 9),
    'weights’ header lists a tensor of 4 TB': _header(_huge_tensor),
    'weights’ header is a list': _header(lambda header: []),
    'weights are a directory': _replaced(WEIGHTS, Path.mkdir),
    'weights are a FIFO': _replaced(WEIGHTS, os.mkfifo),
    'weights are /dev/zero': _replaced(WEIGHTS, lambda p: p.symlink_to('/dev/zero')),
    'weights are a link to themselves': _replaced(WEIGHTS, lambda p: p.symlink_to(p)),
    'weights are a sparse file of 100 GB': lambda model: os.truncate(model / WEIGHTS, 10 ** 11),
    'config truncated to half': _truncated(CONFIG, 0.5),
    'config empty': _truncated(CONFIG, 0),
    'config is a FIFO': _replaced(CONFIG, os.mkfifo),
    'config is a directory': _replaced(CONFIG, Path.mkdir),
    'config is /dev/zero': _replaced(CONFIG, lambda p: p.symlink_to('/dev/zero')),
    'config is not UTF-8': lambda model: (model / CONFIG).write_bytes(b'\xff\xfe{}'),
    'config nested 200,000 deep': _text(CONFIG, lambda: '[' * 200_000 + ']' * 200_000),
    'config nested, as an object': _text(CONFIG, lambda: '{"a":' * 100_000 + '1' + '}' * 100_000),
    'config of 1 GB, sparse': lambda model: os.truncate(model / CONFIG, 10 ** 9),
    'config with a number of 1 million digits': _text(
        CONFIG, lambda: '{"format": ' + '9' * 1_000_000 + '}'),
    'config is a number': _text(CONFIG, lambda: '7'),
    'format of another program': _edit(lambda d: d.update(format='other/9')),
    'classes are missing': _edit(lambda d: d.pop('classes')),
    'classes are a number': _classes(3),
    'classes are numbers': _classes({'verb': 3, 'noun': 4}),
    'classes of no head': _classes({}),
    '3 million classes': _classes({'verb': [str(i) for i in range(3_000_000)], 'noun': ['a']}),
    'width of 10 million': _architecture(dim=10_000_000, heads=8),
    'width of 1e30': _architecture(dim=10 ** 30, heads=1),
    'feed-forward of 10 thousand million': _architecture(feedforward=10 ** 10),
    'a million layers': _architecture(layers=1_000_000),
    'width is a text': _architecture(dim='wide'),
    'width is NaN': _architecture(dim=float('nan')),
    'width is a fraction': _architecture(dim=16.5),
    'encoders are a list': _architecture(encoders=[]),
    'encoder is another class': _edit(_first_encoder({'name': 'os:system'})),
    'encoder of enormous widths': _edit(_first_encoder({'options': {'widths': [10 ** 7] * 4}})),
    'encoder of unknown options': _edit(_first_encoder({'options': {'depth': 3}})),
    'frames of 1 million x 1 million': _clip(
        video={'height': 10 ** 6, 'width': 10 ** 6}),
    '1000 million frames': _clip(num_frames=10 ** 9),
    'a window of 30 years': _clip(duration=1e9),
    'a window of infinity': _clip(duration=float('inf')),
    'audio at 1e12 Hz': _edit(lambda d: d['clip']['audio'].update(sample_rate=10 ** 12)),
    'metrics are a text': _edit(lambda d: d.update(metrics='good')),
}
"""Corruptions of a copy of a valid model directory, by name."""

LOADABLE = ('metrics are a text',)
"""Corruptions with which a model may still be loaded."""


def corrupted(good: Path, folder: Path, name: str) -> Path:
    """Return a corrupted copy of a model directory."""
    model = folder / f'model_{list(CORRUPTIONS).index(name)}'
    shutil.copytree(good, model)
    CORRUPTIONS[name](model)
    return model
