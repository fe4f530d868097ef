"""
Audio of a microphone: raw samples whose format the parameters, the driver or each message states.

Shape legend: n samples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

from karmma_ros.clip import AudioSpec, ClipSpec
from karmma_ros.errors import DataError, InvalidSampleError, InvalidSettingError, printable
from karmma_ros.modalities.audio_buffer import AudioArrays, AudioBuffer, AudioChunk
from karmma_ros.modalities.audio_content import AudioContent
from karmma_ros.modalities.audio_corruptions import (
    AUDIO_CORRUPTIONS,
    corrupt_tiles,
    INPUT_CORRUPTIONS,
)
from karmma_ros.modalities.audio_rate import AudioFormat, AudioRateCheck
from karmma_ros.modalities.corruption import CorruptionContext
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.message_types import (
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_INFO,
    AUDIO_STAMPED,
)
from karmma_ros.modalities.modality_type import (
    InfoTopic,
    InputDecoder,
    InputMessage,
    ModalityType,
    Values,
)
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.pcm import decode_pcm
from karmma_ros.preprocess.spectrogram import audio_input, padded_spectrogram, tile_starts
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.media.sources import AudioSource, SharedFrames, SourceOptions
    from torch import Tensor

# Drivers that know only one leave it empty.
_RAW_CODINGS = ('', 'wave', 'raw', 'pcm')
_LONGEST = 60
"""Characters that are kept of what a driver calls its format."""

# PortAudio's sample formats, which the other audio_common_msgs carry, to field and name.
_PORTAUDIO = {
    0x01: ('float32_data', 'F32'), 0x02: ('int32_data', 'S32'), 0x08: ('int16_data', 'S16'),
    0x10: ('int8_data', 'S8'), 0x20: ('uint8_data', 'U8'),
}


class AudioDecoder:
    """
    Decode the bytes of ros-drivers' audio_common_msgs, which do not state their format.

    AudioInfo does. Where the driver publishes one, it has priority over the parameters.
    """

    def __init__(self, sample_rate: int, channels: int, sample_format: str) -> None:
        """
        Take the format: hertz, interleaved channels, and GStreamer's name, as `S16LE`.

        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._given = self._used = sample_rate, channels, sample_format
        self._from_info = False
        self._unsupported = ''
        """Why the driver's audio cannot be decoded."""
        try:
            decode_pcm(b'\x00' * 64 * channels, sample_format=sample_format, channels=channels)
        except InvalidSampleError as problem:
            raise InvalidSettingError('audio.sample_format', sample_format,
                                      'a format that can be decoded', str(problem)) from None

    @property
    def format(self) -> AudioFormat:
        """Return how audio is read now, and what states it."""
        return AudioFormat(*self._used, stated_by='audio_info' if self._from_info else '')

    @property
    def sample_rate(self) -> int:
        """Return the rate of what is read now, Hz."""
        return self._used[0]

    def __str__(self) -> str:
        rate, channels, sample_format = self._used
        return f'{sample_format}, {rate} Hz, {channels} channel{"s" * (channels != 1)}'

    def __call__(self, data: Any) -> NDArray[np.float32]:
        """
        Return mono float32 `[n]` in [-1, 1].

        :raises InvalidSampleError: for bytes that are not audio in this format, and while
            the driver states that it publishes compressed audio.
        """
        if self._unsupported:
            raise InvalidSampleError(self._unsupported)
        _, channels, sample_format = self._used
        return decode_pcm(data, sample_format=sample_format, channels=channels)

    def apply_info(self, info: Any) -> str:
        """
        Use the format that audio_common_msgs/AudioInfo states; the newest one counts.

        Return a sentence when it contradicts the parameters, else ''.
        """
        name = printable(info.sample_format.strip(), _LONGEST).upper()
        stated = info.sample_rate, info.channels, name
        given = (*self._given[:2], self._given[2].strip().upper())
        self._used = tuple(  # type: ignore[assignment]
            new or old for new, old in zip(stated, given))
        self._from_info, self._unsupported = bool(info.sample_rate), ''
        if info.coding_format.lower() not in _RAW_CODINGS:
            self._unsupported = (
                f'audio_info: the driver sends {printable(info.coding_format, _LONGEST)}; start '
                'it with format:=wave')
        names = 'audio.sample_rate', 'audio.channels', 'audio.sample_format'
        return self._unsupported or ', '.join(
            f'{name} is {ours}, but audio_info has {printable(theirs, _LONGEST)}, which is used'
            for name, ours, theirs in zip(names, given, self._used) if ours != theirs)


class StampedAudioDecoder:
    """
    Decode AudioStamped of the other audio_common_msgs, mgonzs13's, which states its format.

    Rate and channels may change from message to message.
    """

    def __init__(self) -> None:
        self.format = AudioFormat(0, 0, '', 'each message')
        """Of the last message."""

    @property
    def sample_rate(self) -> int:
        """Return the rate of the last message, Hz."""
        return self.format.rate

    def __str__(self) -> str:
        if not self.format.rate:
            return 'as in each message'
        rate, channels, name = self.format.rate, self.format.channels, self.format.sample_format
        return f'{name}, {rate} Hz, {channels} channel(s)'

    def __call__(self, message: Any) -> NDArray[np.float32]:
        """
        Return mono float32 `[n]` in [-1, 1].

        :raises InvalidSampleError: for a format that cannot be read.
        """
        info, data = message.audio.info, message.audio.audio_data
        try:
            field, name = _PORTAUDIO[info.format]
        except KeyError:
            known = ', '.join(f'{number} ({name})' for number, (_, name) in _PORTAUDIO.items())
            raise InvalidSampleError(
                f"audio.info.format: got {info.format}; expected PortAudio's number of a format: "
                f'{known}: set format of audio_capturer_node to one of them') from None
        samples = decode_pcm(
            getattr(data, field), sample_format=name, channels=info.channels,
            big_endian=sys.byteorder == 'big')
        self.format = AudioFormat(info.rate, info.channels, name, 'each message')
        return samples


class MicrophoneDecoder(InputDecoder):
    """Decode audio messages of all types, and check their rate."""

    _info: Any
    """What the driver stated, None before."""
    _format: AudioFormat | None
    """How the last message was read."""
    _stamped: StampedAudioDecoder
    _rate: AudioRateCheck

    def read_parameters(self) -> None:
        """Read the format; what the driver stated has priority."""
        self._decoder = AudioDecoder(
            *(self.parameter(name) for name in ('sample_rate', 'channels', 'sample_format')))
        if self._info is not None:
            self._decoder.apply_info(self._info)

    def decode(self, received: InputMessage, now_ns: int) -> AudioChunk:
        """Return the samples of a message and their rate."""
        message = received.read()
        if received.type_name == AUDIO_STAMPED:
            samples, audio_format = self._stamped(message), self._stamped.format
        else:
            data = message.data if received.type_name == AUDIO_DATA else message.audio.data
            samples, audio_format = self._decoder(data), self._decoder.format
        before, self._format = self._format, audio_format
        # Earlier samples were decoded with another format, unless each message states its own.
        self.restarts = before not in (None, audio_format) and (
            received.type_name != AUDIO_STAMPED)
        return AudioChunk(samples, audio_format.rate)

    def stored(self, sample: AudioChunk, stamp_ns: int, now_ns: int) -> None:
        """Check the rate against the times of the chunks."""
        assert self._format is not None
        self._rate.update(len(sample.samples), self._format, stamp_ns, now_ns)
        self.set_finding('rate', self._rate.finding)

    def apply_info(self, info: Any) -> str:
        """
        Use the format that the driver states.

        :raises InvalidSampleError: when it cannot be understood.
        """
        try:
            difference = self._decoder.apply_info(info)
        except Exception as error:  # whatever it holds, audio is still received
            raise InvalidSampleError(f'audio_info: {type(error).__name__}: {error}') from None
        self._info = info
        return difference

    def describe(self, received: InputMessage) -> str:
        """Return how audio of this message type is decoded now."""
        return str(self._stamped if received.type_name == AUDIO_STAMPED else self._decoder)

    def reset(self) -> None:
        """Clear what the driver stated, and start the check of the rate anew."""
        super().reset()
        self._info = self._format = None
        self._stamped, self._rate = StampedAudioDecoder(), AudioRateCheck()


_CHUNK_S = 0.032
"""Seconds of audio in a message, as drivers send it."""
_SAMPLES = f'publish its samples as {AUDIO_DATA_STAMPED}'


class Audio(ModalityType):
    """Audio (A)."""

    name, letter, sensor = 'audio', 'A', 'audio'
    what, silence = 'the microphone', 'audio after which it is stale'
    spec_class, spec_field = AudioSpec, 'audio'
    is_image = packs_samples = True
    message_types = (AUDIO_DATA_STAMPED, AUDIO_STAMPED, AUDIO_DATA)
    info = InfoTopic('audio_info', AUDIO_INFO, (AUDIO_DATA_STAMPED, AUDIO_DATA))
    depth = 50  # every gap reaches the network
    decoder, content_check = MicrophoneDecoder, AudioContent
    corruptions = AUDIO_CORRUPTIONS
    unsupported = {
        'foxglove_msgs/msg/RawAudio': _SAMPLES,
        'audio_utils_msgs/msg/AudioFrame': _SAMPLES,
        'audio_common_msgs/msg/Audio': f'publish it within {AUDIO_STAMPED}',
    }
    unsupported_names = '(?i:Audio|PCM)', f'publish {AUDIO_DATA_STAMPED}'

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[k, f, s]`: tiles, mel bands and columns of the spectrogram."""
        spec = self.spec(clip)
        return spec.tiles, spec.n_mels, spec.tile_steps

    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from mono audio float32 `[n]`, or from an `AudioArrays` with gaps."""
        given = self._checked(arrays, clip)
        return audio_input(
            given.samples, self.spec(clip), given.valid_mask, given.spectrogram)

    def _checked(self, arrays: Any, clip: ClipSpec) -> AudioArrays:
        given = arrays if isinstance(arrays, AudioArrays) else AudioArrays(arrays)
        check_array('audio', given.samples, np.float32, (self._samples(clip),))
        return given

    def _samples(self, clip: ClipSpec) -> int:
        return round(clip.duration * self.spec(clip).sample_rate)

    def begin(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the spectrogram that tiles are extracted of, or tiles that are their own."""
        if self.spec(clip).tile_duration:
            return self.prepare(arrays, clip)
        given = self._checked(arrays, clip)
        return padded_spectrogram(
            given.samples, self.spec(clip), given.valid_mask, given.spectrogram)

    def prepare_batch(self, samples: Tensor, clip: ClipSpec) -> Tensor:
        """Return the tiles of spectrograms `[b, f, s]`."""
        from karmma_ros.modalities.transforms import extract_tiles
        spec = self.spec(clip)
        if spec.tile_duration:
            return samples
        starts = tile_starts(self._samples(clip), spec) + spec.tile_steps
        return extract_tiles(samples, starts.tolist(), spec.tile_steps)

    def samples_of(self, arrays: Any) -> NDArray[np.float32]:
        """Return the samples `[n]`."""
        samples: NDArray[np.float32] = (
            arrays.samples if isinstance(arrays, (AudioArrays, AudioChunk)) else arrays)
        return samples

    def with_samples(self, arrays: Any, samples: NDArray[np.float32]) -> Any:
        """Return other samples with the same gaps, or at the same rate."""
        if isinstance(arrays, AudioArrays):
            return AudioArrays(samples, arrays.valid_mask)
        return AudioChunk(samples, arrays.sample_rate) if isinstance(arrays, AudioChunk) else (
            samples)

    def window_of_one(self, sample: AudioChunk) -> AudioChunk:
        """Return the chunk."""
        return sample

    def only_sample(self, sample: AudioChunk, arrays: AudioChunk) -> AudioChunk:
        """Return the chunk."""
        return arrays

    def sample_times(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float64]:
        """Return the seconds from the first sample to each."""
        rate = arrays.sample_rate if isinstance(arrays, AudioChunk) else (
            self.spec(clip).sample_rate)
        return np.arange(len(self.samples_of(arrays))) / rate

    def truncate(self, arrays: Any, fraction: float, clip: ClipSpec) -> AudioArrays:
        """Return a gap after the first fraction."""
        samples = self.samples_of(arrays).copy()
        given = arrays.valid_mask if isinstance(arrays, AudioArrays) else None
        valid_mask = np.array(np.ones(len(samples)) if given is None else given, np.bool_)
        first = round(len(samples) * fraction)
        samples[first:], valid_mask[first:] = 0, False
        return AudioArrays(samples, valid_mask)

    def messages_of(self, arrays: Any, clip: ClipSpec) -> list[tuple[float, AudioChunk]]:
        """Return chunks of the usual length."""
        samples, rate = self.samples_of(arrays), self.spec(clip).sample_rate
        size = max(1, round(_CHUNK_S * rate))
        return [((i + size) / rate, AudioChunk(samples[i:i + size], rate))
                for i in range(0, len(samples) - size + 1, size)]

    @property
    def input_corruptions(self) -> tuple[str, ...]:
        """Return the names of those that need no phase."""
        return INPUT_CORRUPTIONS

    def corrupt_input(
        self, name: str, severity: int, x: NDArray[np.float32], clip: ClipSpec,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Corrupt tiles in place of audio, which cannot be restored."""
        spec, level = self.spec(clip), self.corruption(name).level(severity)
        count = round(clip.duration * spec.sample_rate)
        context = CorruptionContext(rng, rng, np.arange(count) / spec.sample_rate)
        return corrupt_tiles(name, level, x, spec, count, context)

    def buffer(self, clip: ClipSpec) -> AudioBuffer:
        """Return an empty buffer."""
        return AudioBuffer(clip, self.spec(clip))

    def read(self, message: Any, type_name: str, clip: ClipSpec, values: Values) -> Any:
        """Return the message: how it is decoded depends on those before."""
        return message

    def open_source(self, path: Path, options: SourceOptions) -> AudioSource:
        """
        Open an audio file.

        :raises DataError: for a video, from which audio is to be extracted before.
        """
        from karmma_ros.media.audio_file import AudioFile
        from karmma_ros.media.video_file import VIDEO_SUFFIXES
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise DataError(
                path, 'expected an audio file (wav, flac)',
                f'extract it with `ffmpeg -i {path.name} -vn -ac 1 -af '
                f'aresample=async=1:first_pts=0 {path.stem}.wav`')
        return AudioFile(path)

    def read_window(
        self, source: AudioSource, start_s: float, clip: ClipSpec, frames: SharedFrames,
    ) -> NDArray[np.float32]:
        """Return mono audio `[n]`."""
        return source.samples(start_s, clip.duration, self.spec(clip).sample_rate)

    def augment(self, x: Tensor, strength: float, rand: Callable[..., Tensor]) -> Tensor:
        """Mask a band and an interval."""
        from karmma_ros.modalities.transforms import mask_spectrogram
        return mask_spectrogram(x, strength, rand)

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the format of audio whose messages do not state it."""
        name = self.modality
        return (
            Declaration(f'{name}.type', AUDIO_DATA_STAMPED, f'Message type of the {name} topic.',
                        choices=(AUDIO_DATA_STAMPED, AUDIO_DATA, AUDIO_STAMPED)),
            Declaration(f'{name}.sample_rate', 16_000, 'Hz; as the audio driver publishes.',
                        (1_000, 384_000)),
            Declaration(f'{name}.channels', 1, 'Interleaved channels; they are mixed to one.',
                        (1, 64)),
            Declaration(f'{name}.sample_format', 'S16LE', "GStreamer's name of the sample "
                        'format: S16LE, S32LE, F32LE, U8 …'),
        )
