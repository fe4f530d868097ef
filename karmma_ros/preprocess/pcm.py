"""
The bytes of an audio message to mono samples.

Sample formats have GStreamer's names (`S16LE`), as audio_common sends them.
"""

from __future__ import annotations

from functools import lru_cache
import re
from typing import Any

from karmma_ros.errors import InvalidSampleError, printable
import numpy as np
from numpy.typing import NDArray

_FORMATS = 'S8, U8, S16, S24, S32, F32, F64, followed by LE or BE'
_NAME = re.compile(r'(S8|U8|(?P<wide>S16|S24|S32|F32|F64)(?P<order>LE|BE)?)\Z')
_COMPRESSED = re.compile(r'mp3|mpeg|aac|ogg|opus|vorbis|flac|wma', re.IGNORECASE)
_MAX_CHANNELS = 64
_MP3_STARTS = b'ID3', b'\xff'

# Kilobits a second and hertz by the index fields of an MPEG layer III frame header.
_BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_1 = (44_100, 48_000, 32_000)


def decode_pcm(
    data: Any,
    *,
    sample_format: str,
    channels: int,
    big_endian: bool = False,
) -> NDArray[np.float32]:
    """
    Decode interleaved PCM to mono float32 `[n]` in -1..1; channels are averaged.

    `big_endian` serves formats whose name does not end in LE or BE. `data` is any
    bytes-like object or a uint8 array.

    :raises InvalidSampleError: for an unknown or compressed format, a number of bytes that
        is not a multiple of a sample, no samples at all, NaN or infinity.
    """
    sample_type, order = _parse(sample_format, big_endian)
    if not 1 <= channels <= _MAX_CHANNELS:
        raise InvalidSampleError(
            f'audio channels: got {channels}; expected 1 to {_MAX_CHANNELS}')
    flat = _flat_bytes(data)
    if flat[:3].tobytes().startswith(_MP3_STARTS) and _is_mp3(flat[:4096].tobytes(), flat.size):
        raise _compressed('mp3')
    frame = int(sample_type[1:]) // 8 * channels
    if flat.size == 0 or flat.size % frame:
        raise InvalidSampleError(
            f'audio data: got {flat.size} bytes; expected a multiple of {frame}, at least one '
            f'({channels} channel(s) of {printable(sample_format, 60)})')
    samples = _to_float(flat, sample_type, order).reshape(-1, channels)
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1)
    if sample_type[0] != 'F':
        return mono  # integers are finite and in range
    if not np.isfinite(mono).all():
        raise InvalidSampleError('audio data: got NaN or infinity; expected finite samples')
    return np.asarray(np.clip(mono, -1, 1), np.float32)


@lru_cache(maxsize=16)
def _parse(sample_format: str, big_endian: bool) -> tuple[str, str]:
    name = str(sample_format).strip()
    if _COMPRESSED.search(name):
        raise _compressed(name)
    match = _NAME.match(name.upper())
    if match is None:
        raise InvalidSampleError(
            f'audio sample format: got {printable(repr(sample_format), 60)}; expected {_FORMATS}')
    order = match['order'] or ('BE' if big_endian else 'LE')
    return match['wide'] or match[0], '>' if order == 'BE' else '<'


def _compressed(name: str) -> InvalidSampleError:
    return InvalidSampleError(
        f'audio: got compressed audio ({printable(name, 60)}); expected raw PCM: start '
        'audio_capture with `format:=wave`')


def _flat_bytes(data: Any) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray) and data.dtype == np.uint8:
        return data.reshape(-1)
    try:
        view = memoryview(data)
        return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)
    except (TypeError, ValueError) as error:
        raise InvalidSampleError(
            f'audio data: got a {type(data).__name__}; expected bytes or a uint8 array'
        ) from error


def _to_float(flat: NDArray[np.uint8], sample_type: str, order: str) -> NDArray[np.float32]:
    if sample_type == 'S24':
        flat, sample_type, order = _widen_24(flat, order), 'S32', '<'
    letter, bits = {'S': 'i', 'U': 'u', 'F': 'f'}[sample_type[0]], int(sample_type[1:])
    wide = np.ascontiguousarray(flat).view(f'{order}{letter}{bits // 8}')
    if letter == 'f':
        with np.errstate(over='ignore', invalid='ignore'):
            return wide.astype(np.float32)
    if letter == 'u':
        wide = wide.astype(np.float32) - np.float32(2 ** (bits - 1))
    samples: NDArray[np.float32] = np.multiply(
        wide, np.float32(2 ** (1 - bits)), dtype=np.float32)
    return samples


def _widen_24(flat: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    """Put the three bytes of each sample into the high bytes of a little-endian int32."""
    triples = flat.reshape(-1, 3)
    quads = np.zeros((len(triples), 4), np.uint8)
    quads[:, 1:] = triples[:, ::-1] if order == '>' else triples
    return quads.reshape(-1)


def _is_mp3(head: bytes, size: int) -> bool:
    """
    Return whether data is MPEG audio sent under a PCM name, as audio_capture does by default.

    Two bytes of PCM may equal a frame's sync word by chance; a header whose frame
    ends at the next sync word, or with the message, does not.
    """
    if head[:3] == b'ID3' and size >= 10:
        return True
    length = _mp3_frame_length(head)
    if length == 0:
        return False
    return length == size or (length + 4 <= len(head) and _mp3_frame_length(head[length:]) > 0)


def _mp3_frame_length(head: bytes) -> int:
    """Read the frame's length in bytes from a layer III header; 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or rate == 3 or not 0 < bitrate < 15:
        return 0
    hertz = _RATES_1[rate] // {3: 1, 2: 2, 0: 4}[version]
    kilobits, slots = (_BITRATES_1, 144) if version == 3 else (_BITRATES_2, 72)
    return slots * kilobits[bitrate] * 1000 // hertz + (head[2] >> 1 & 1)
