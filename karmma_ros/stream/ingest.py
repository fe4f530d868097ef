"""
Decode each message of an input, check its content and store it, live or from a bag.

Nothing here needs ROS. The node's callbacks and the replay of a bag use the same code, so that
both have the same windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSampleError, UninformativeSampleError
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.content_check import (
    content_declarations,
    ContentCheck,
    ContentMonitor,
    Finding,
    SampleContext,
)
from karmma_ros.modalities.modality_type import (
    header_of,
    ImageSizes,
    InputDecoder,
    InputMessage,
    stamp_ns_of,
    with_own_names,
)
from karmma_ros.modality import Modality
from karmma_ros.stream.sensor_stream import SensorStream

_CONTENT = 'content'
"""Name of the finding of a `ContentCheck`, beside those of the decoder."""


class ReceivedMessage(NamedTuple):
    """A message in memory."""

    modality: Modality
    type_name: str
    message: Any
    spec: ClipSpec
    """Of the clips that it may become part of."""
    values: Mapping[str, Any]
    """The node's parameters by name."""

    @property
    def stamp_ns(self) -> int:
        """
        Return its stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """
        header = header_of(self.message)
        return 0 if header is None else stamp_ns_of(header)

    def read(self) -> Any:
        """
        Return what `ModalityType.read` makes of it.

        :raises InvalidSampleError: when it cannot be read.
        """
        return modality_type(self.modality).read(
            self.message, self.type_name, self.spec, self.values)


class MessageIngest:
    """
    Decode the messages of every input and store them in one stream.

    Whatever is wrong with a message is counted with its reason, which is returned; nothing is
    raised.
    """

    def __init__(
        self, values: Mapping[str, Any], lock: AbstractContextManager[Any] | None = None,
        corrupt: Callable[[InputMessage, Any], Any] | None = None,
    ) -> None:
        """
        Start without decoders; `feed` comes before the first message.

        :param values: the node's parameters by name; read again by `read_parameters`.
        :param lock: guards the stream where another thread reads it. It is held for storing,
            never for decoding.
        :param corrupt: what a simulated fault makes of the sample of a message.
        """
        self._values = values
        self._lock = nullcontext() if lock is None else lock
        self._corrupt = corrupt
        self._target: SensorStream | None = None
        self._decoders: dict[Modality, InputDecoder] = {}
        self._image_sizes: ImageSizes = {}
        self._monitors: dict[Modality, ContentMonitor] = {}
        """Of the inputs whose content is checked."""
        self._checks: dict[Modality, ContentCheck] = {}
        """Theirs."""
        self._read_with: dict[Modality, tuple[Any, ...]] = {}
        """The values of `ModalityType.read_with` of each input."""
        self._known: dict[tuple[Modality, str], Finding] = {}
        """Findings that the stream was notified of."""

    def feed(self, stream: SensorStream) -> None:
        """
        Store the messages from now on in this stream; what was learned from messages stays.

        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        for modality in stream.inputs:
            self._decoder(modality)
        self._target = stream
        self._read_content_parameters()
        for (modality, check), finding in self._known.items():
            with self._lock:
                stream.set_finding(modality, check, finding)

    def read_parameters(self) -> None:
        """
        Read the parameters anew; what was learned from messages stays.

        The samples of an input whose messages are read in another way from now on are void.

        :raises InvalidSettingError: for a value that cannot be used.
        """
        for modality, decoder in self._decoders.items():
            decoder.read_parameters()
            before, after = self._read_with[modality], self._values_read_with(modality)
            if before != after:
                self._read_with[modality] = after
                with self._lock:
                    self._stream.restart(modality)
        self._read_content_parameters()

    def reset(self) -> None:
        """Clear what was learned from messages, and what the content checks found."""
        self.clear_content()
        for decoder in self._decoders.values():
            decoder.reset()
            decoder.read_parameters()
            self._report(decoder)

    def clear_content(self) -> None:
        """Discard what the content checks keep of samples, and what they found."""
        self._monitors.clear()
        self._read_content_parameters()

    def describe(self, received: InputMessage) -> str:
        """Return how a message is encoded, '' where there is nothing to report."""
        return self._decoder(received.modality).describe(received)

    def apply_info(self, modality: Modality, info: Any) -> str:
        """
        Use a message that describes the data of an input, such as its driver's audio format.

        Return a sentence when it contradicts the parameters, else ''.

        :raises InvalidSampleError: when it cannot be understood.
        """
        return with_own_names(modality, self._decoder(modality).apply_info(info))

    def wants(self, modality: Modality, stamp_ns: int, now_ns: int) -> bool:
        """
        Return whether to read a message and `add` it; one that is not wanted is counted.

        :param stamp_ns: negative: `add` drops it with the reason.
        """
        with self._lock:
            return self._stream.wants(modality, stamp_ns, now_ns)

    def add(self, received: InputMessage, now_ns: int) -> str:
        """Decode and store a message that is received now; return why it was dropped, or ''."""
        informative = True
        try:
            return self._store(received, received.stamp_ns, now_ns)
        except InvalidSampleError as error:
            reason, informative = str(error), not isinstance(error, UninformativeSampleError)
        except Exception as error:  # one bad message must not end all others
            reason = f'{type(error).__name__}: {error}'
        return self.reject(received.modality, reason, now_ns, informative)

    def reject(
        self, modality: Modality, reason: str, now_ns: int, informative: bool = True,
    ) -> str:
        """
        Count a message that cannot be used; return the reason, with the parameters of this input.

        :param informative: whether its content is not the reason.
        """
        reason = with_own_names(modality, reason)
        with self._lock:
            self._stream.reject(modality, reason, now_ns, informative)
        return reason

    def _store(self, received: InputMessage, stamp_ns: int, now_ns: int) -> str:
        modality, stream = received.modality, self._stream
        with self._lock:
            if not stream.wants(modality, stamp_ns, now_ns):
                return ''
        decoder = self._decoder(modality)
        sample = decoder.decode(received, now_ns)
        judged: Any = decoder
        if self._corrupt is not None:
            sample = self._corrupt(received, clean := sample)
            if sample is not clean:  # what the decoder keeps beside it is of the clean one
                judged = modality_type(modality).stand_ins(sample, received.spec)[1] or decoder
        self._check_content(received, judged, sample, now_ns)
        self._report(decoder)
        with self._lock:
            if decoder.restarts:
                stream.restart(modality)
            reason = stream.add(modality, sample, stamp_ns, now_ns)
        if not reason:
            decoder.stored(sample, stamp_ns, now_ns)
            self._report(decoder)
        return reason

    def _values_read_with(self, modality: Modality) -> tuple[Any, ...]:
        return tuple(self._values[f'{modality}.{name}']
                     for name in modality_type(modality).read_with)

    def _decoder(self, modality: Modality) -> InputDecoder:
        if modality not in self._decoders:
            self._decoders[modality] = modality_type(modality).decoder(
                modality, self._values, self._image_sizes)
            self._read_with[modality] = self._values_read_with(modality)
        return self._decoders[modality]

    def _read_content_parameters(self) -> None:
        """Start the content check of each input anew whose parameters have changed."""
        for modality in self._decoders:
            check = modality_type(modality).content_check
            with self._lock:
                used = self._target is None or self._target.uses(modality)
            if check is None or not used or not self._values[f'{modality}.check_content']:
                self._monitors.pop(modality, None)
                self._set_finding(modality, _CONTENT, None)
                continue
            values = {each.name: self._values[each.name]
                      for each in content_declarations(modality, check)}
            before = self._monitors.get(modality)
            if before is None or before.check.values != values:
                self._monitors[modality] = ContentMonitor(check(modality, values))
                self._set_finding(modality, _CONTENT, None)
        self._checks = {modality: each.check for modality, each in self._monitors.items()}

    def _check_content(
        self, received: InputMessage, decoder: InputDecoder, sample: Any, now_ns: int,
    ) -> None:
        """Check whether a sample shows anything, and notify the stream of a change."""
        monitor = self._monitors.get(received.modality)
        if monitor is not None:
            monitor.update(sample, SampleContext(received, decoder, now_ns, self._checks))
            self._set_finding(received.modality, _CONTENT, monitor.finding)

    def _report(self, decoder: InputDecoder) -> None:
        """Notify the stream of each finding of a decoder that has changed."""
        known = [check for modality, check in self._known
                 if modality == decoder.modality and check != _CONTENT]
        for check in {*known, *decoder.findings}:
            self._set_finding(decoder.modality, check, decoder.findings.get(check))

    def _set_finding(self, modality: Modality, check: str, finding: Finding | None) -> None:
        """Notify the stream of a finding, if it has changed."""
        key = modality, check
        if finding == self._known.get(key):
            return
        if finding is None:
            del self._known[key]
        else:
            self._known[key] = finding
        if self._target is not None:
            with self._lock:
                self._target.set_finding(modality, check, finding)

    @property
    def _stream(self) -> SensorStream:
        assert self._target is not None, 'feed comes before the first message'
        return self._target
