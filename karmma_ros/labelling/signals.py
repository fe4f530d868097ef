"""
Audio and the activity of every sensor of a recording over time, in bins of bounded number.

One pass over the bag fills them in a thread; what is done can be requested meanwhile.

Shape legend: b bins of the recording, c columns of the page, f mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import cv2
from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.reader import Bag, Message
from karmma_ros.bags.topics import is_input, TopicChoice
from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, KarmmaError, printable
from karmma_ros.labelling.bag_audio import BagAudio, joined, TimedAudio
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.modality_type import ImageSizes, InputDecoder
from karmma_ros.modality import Modality
from karmma_ros.preprocess.spectrogram import FLOOR_DB, log_mel, resample
import numpy as np
from numpy.typing import NDArray

_BIN_S, _MOST_BINS = 0.02, 300_000
_RATE, _MELS = 16_000, 64
_RANGE_DB = 150.0
"""Decibels that the 255 levels of the spectrogram cover, from `FLOOR_DB` on."""
_IMAGE_PERIOD_NS = NANOSECONDS // 5
"""Images are compared this often: decoding each would take as long as playing."""
MOST_COLUMNS = 4000


class SignalScan:
    """The signals of one bag; its thread ends by itself, or by `stop`."""

    def __init__(
        self, path: Path, choice: TopicChoice, values: Mapping[str, Any], length_s: float,
        info: Any = None,
    ) -> None:
        """
        Make empty bins.

        :param values: the node's parameters by name.
        :param info: as of `BagAudio`.
        """
        self._path, self._choice, self._values, self._info = path, choice, values, info
        self._length_s = max(length_s, _BIN_S)
        self.bin_s = max(_BIN_S, self._length_s / _MOST_BINS)
        bins = int(self._length_s / self.bin_s) + 1
        self._low, self._high = np.zeros(bins, np.int8), np.zeros(bins, np.int8)
        self._spectrogram = np.zeros((bins, _MELS), np.uint8)
        self._activity = {
            role: np.zeros(bins, np.float32) for role in choice.topics if is_input(role)
            and role != Modality.AUDIO.value}
        self._has_audio = Modality.AUDIO.value in choice.topics
        self.progress, self.error = 0.0, ''
        self._stop, self._lock, self._started = Event(), Lock(), False
        self._thread = Thread(target=self._run, name='karmma signals', daemon=True)

    def start(self) -> None:
        """Begin the pass over the bag, once."""
        with self._lock:
            if not self._started:
                self._started = True
                self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def to_dict(self, start_s: float, stop_s: float, columns: int) -> dict[str, Any]:
        """Return what is drawn of an interval, JSON-ready: numbers of `columns` columns."""
        edges, end = self._edges(start_s, stop_s, columns)
        tracks = []
        for role, values in self._activity.items():
            most = float(np.percentile(values[values > 0], 98)) if (values > 0).any() else 1.0
            shown = np.maximum.reduceat(values[:end], edges)
            levels = np.clip(255 * shown / most, 0, 255).astype(np.uint8)
            tracks.append({'role': role, 'values': levels.tolist(), 'label':
                           modality_type(Modality(role)).label.removeprefix('the ')})
        waveform = [np.minimum.reduceat(self._low[:end], edges).tolist(), np.maximum.reduceat(
            self._high[:end], edges).tolist()] if self._has_audio else None
        return {'start': start_s, 'stop': stop_s, 'columns': columns, 'progress': self.progress,
                'error': self.error, 'waveform': waveform, 'tracks': tracks}

    def spectrogram(self, start_s: float, stop_s: float, columns: int) -> bytes:
        """Return the spectrogram of an interval as PNG `[f, c]`, high frequencies at the top."""
        edges, end = self._edges(start_s, stop_s, columns)
        levels = np.maximum.reduceat(self._spectrogram[:end], edges, axis=0).astype(np.float32)
        sample = self._spectrogram[::max(1, len(self._spectrogram) // 5000)]
        filled = sample[sample > 0]
        low, high = np.percentile(filled, [20, 99.7]) if len(filled) else (0.0, 255.0)
        scaled = np.clip(255 * (levels - low) / max(1.0, high - low), 0, 255).astype(np.uint8)
        image = cv2.applyColorMap(scaled.T[::-1], cv2.COLORMAP_MAGMA)
        return bytes(cv2.imencode('.png', image)[1])

    def _edges(
        self, start_s: float, stop_s: float, columns: int
    ) -> tuple[NDArray[np.int64], int]:
        """Return the first bin of each column, `[c]`, and the end of the last one."""
        times = np.linspace(start_s, stop_s, columns, endpoint=False)
        edges = np.clip((times / self.bin_s).astype(np.int64), 0, len(self._low) - 1)
        return edges, max(int(edges[-1]) + 1, math.ceil(stop_s / self.bin_s))

    def _run(self) -> None:
        try:
            with Bag(self._path) as bag:
                self._scan(bag)
        except (KarmmaError, OSError) as error:
            self.error = printable(error)
        self.progress = 1.0

    def _scan(self, bag: Bag) -> None:
        topics = {(t.name, t.type): role for role, t in self._choice.topics.items()
                  if role in self._activity or role == Modality.AUDIO.value}
        audio = BagAudio(bag, self._choice, self._values, self._info)
        activity = {role: _Activity(Modality(role), self._values, bag) for role in self._activity}
        sizes: ImageSizes = {}
        for each in activity.values():
            each.decoder.image_sizes = sizes
        chosen = [bag.topics[key] for key in topics]

        def chunks() -> Any:
            for message in bag.messages(chosen):
                if self._stop.is_set():
                    return
                time_s = (message.received_ns - bag.start_ns) / NANOSECONDS
                self.progress = min(0.999, time_s / self._length_s)
                role = topics[message.topic.name, message.topic.type]
                if role == Modality.AUDIO.value:
                    chunk = audio.chunk(message.data, message.received_ns)
                    if chunk is not None:
                        yield chunk
                    continue
                index = min(int(time_s / self.bin_s), len(self._low) - 1)
                value = activity[role](message)
                bins = self._activity[role]
                bins[index] = max(bins[index], value)

        for part in joined(chunks()):
            self._add_audio(part)

    def _add_audio(self, part: TimedAudio) -> None:
        times = part.start_s + np.arange(len(part.samples)) / part.rate
        index = (times / self.bin_s).astype(np.int64)
        inside = (index >= 0) & (index < len(self._low))
        index, samples = index[inside], part.samples[inside]
        if not len(index):
            return
        firsts = np.concatenate([[0], np.flatnonzero(np.diff(index)) + 1])
        bins = index[firsts]
        scaled = np.clip(127 * samples, -127, 127)
        self._low[bins] = np.minimum(self._low[bins], np.minimum.reduceat(scaled, firsts))
        self._high[bins] = np.maximum(self._high[bins], np.maximum.reduceat(scaled, firsts))
        hop = round(_RATE * self.bin_s)
        spec = AudioSpec(sample_rate=_RATE, n_fft=1024, win_length=640, hop_length=hop,
                         n_mels=_MELS)
        try:
            audio = resample(np.ascontiguousarray(part.samples), part.rate, _RATE)
            levels = log_mel(audio, spec).T
        except InvalidSampleError:
            return
        first = round(part.start_s / self.bin_s)
        begin, end = max(0, first), min(len(self._spectrogram), first + len(levels))
        if begin < end:
            level = np.clip(255 * (levels - FLOOR_DB) / _RANGE_DB, 1, 255).astype(np.uint8)
            self._spectrogram[begin:end] = level[begin - first:end - first]


class _Activity:
    """How much happens in each message of a sensor; at least a little, so that gaps are seen."""

    _LEAST = 1e-3

    def __init__(self, modality: Modality, values: Mapping[str, Any], bag: Bag) -> None:
        self._modality, self._values, self._bag = modality, values, bag
        self._has_frames = modality_type(modality).has_frames
        self.decoder: InputDecoder = modality_type(modality).decoder(modality, values, {})
        self._before: NDArray[np.float32] | None = None
        self._next_ns = 0
        self._value = self._LEAST

    def __call__(self, message: Message) -> float:
        """Return the number of boxes, or the change since the message before."""
        if self._has_frames:
            if message.received_ns < self._next_ns:
                return self._value
            self._next_ns = message.received_ns + _IMAGE_PERIOD_NS
        try:
            received = BagMessage(
                self._modality.value, message.topic.type, 0, message.received_ns, message.data,
                self._bag.reader(message.topic), ClipSpec(), self._values)
            sample = self.decoder.decode(received, message.received_ns)
            self._value = self._LEAST + self._change(np.asarray(sample, np.float32))
        except (InvalidSampleError, ValueError, TypeError):
            self._value = self._LEAST
        return self._value

    def _change(self, sample: NDArray[np.float32]) -> float:
        if self._modality.type_name == Modality.DETECTIONS.value:
            return float(len(sample))
        if self._has_frames:
            sample = sample[::8, ::8]
        before, self._before = self._before, sample
        if before is None or before.shape != sample.shape:
            return 0.0
        change = np.abs(sample - before)
        return float(change[np.isfinite(change)].mean()) if np.isfinite(change).any() else 0.0


