"""
Run the node and record what it does not publish.

`python benchmarks/watched_node.py FILE [--no-network] --ros-args …`: the node itself, with a
record of every image that reaches its callback, of every window and of the network's time. With
`--no-network` each window is prepared as usual, and the logits are zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import sys
from threading import get_native_id
import time
from typing import Any

from karmma_ros.modalities.message_types import IMAGE
from karmma_ros.modalities.modality_type import stamp_ns_of
from karmma_ros.modality import Modality
from karmma_ros.model.backends.interface import Input, Logits
from karmma_ros.model.backends.selection import BackendChoice
from karmma_ros.model.bundle import Bundle
from karmma_ros.node import model_loader
from karmma_ros.node.__main__ import main as run_node
from karmma_ros.node.message_handler import deserialize, MessageHandler
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.window import Window
import numpy as np

NOTES: dict[str, Any] = {
    'images': [], 'windows': [], 'network': [], 'executor': get_native_id(), 'worker': 0}
"""
Images `[stamp_ns, received_ns]`, by the wall clock; windows `[end_ns, newest frame's stamp_ns or
0]`; network `[time.monotonic(), seconds]`; the ids of two threads.
"""


class NoBackend:
    """A backend that costs nothing."""

    name, precision, device, parts = 'none', 'fp32', 'cpu', None

    def __init__(self, bundle: Bundle) -> None:
        self.modalities = bundle.network.modalities
        self._logits = {head: np.zeros(len(names), np.float32)
                        for head, names in bundle.vocabulary.heads.items()}

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """Return equal logits."""
        return dict(self._logits)

    def clear(self) -> None:
        """Do nothing; it keeps nothing."""


def watch(network: bool) -> None:
    """Record from now on; without a network, use `NoBackend`."""
    model_loader.choose = (
        _timed(model_loader.choose)
        if network
        else (
            lambda bundle, *_, **__: BackendChoice(
                NoBackend(bundle), 'no network, for the benchmark'
            )
        )
    )
    MessageHandler.callback = _recording_images(MessageHandler.callback)
    Recogniser.recognise = _recording_windows(Recogniser.recognise)


def _timed(choose: Callable[..., BackendChoice]) -> Callable[..., BackendChoice]:
    def choose_timed(*arguments: Any, **options: Any) -> BackendChoice:
        choice = choose(*arguments, **options)
        infer = choice.backend.infer

        def infer_timed(inputs: Mapping[Modality, Input]) -> Logits:
            started = time.monotonic()
            logits = infer(inputs)
            NOTES['network'].append((started, time.monotonic() - started))
            return logits
        choice.backend.infer = infer_timed
        return choice
    return choose_timed


def _recording_images(callback: Callable[..., Any]) -> Callable[..., Any]:
    def make(
        handler: MessageHandler, modality: Modality, type_name: str
    ) -> Callable[[Any], None]:
        take = callback(handler, modality, type_name)

        def note(message: Any) -> None:
            if modality is Modality.RGB:
                header = deserialize(message, IMAGE).header
                NOTES['images'].append((stamp_ns_of(header), time.time_ns()))
            take(message)
        return note
    return make


def _recording_windows(recognise: Callable[..., Any]) -> Callable[..., Any]:
    def note(recogniser: Recogniser, source: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(source, Window):
            newest_ns = source.spans_ns.get(Modality.RGB, (0, 0))[1]
            NOTES['windows'].append((source.end_ns, newest_ns))
            NOTES['worker'] = get_native_id()
        return recognise(recogniser, source, *arguments, **options)
    return note


if __name__ == '__main__':
    file, *arguments = sys.argv[1:]
    watch('--no-network' not in arguments)
    status = run_node([each for each in arguments if each != '--no-network'])
    Path(file).write_text(json.dumps(NOTES), encoding='utf-8')
    sys.exit(status)
