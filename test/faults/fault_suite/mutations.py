"""Mutated messages: any field of any message, with any value of its type."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
import re
from typing import Any

from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message

Path = tuple[Any, ...]
Change = tuple[Path, str, Any]

_ENCODINGS = (
    '', 'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC1', '16UC1', '32FC1', '32FC2',
    '32FC3', 'bayer_rggb8', 'yuv422', 'yuv422_yuy2', 'nv12', 'RGB8', 'jpeg', 'png', 'webp',
    'rgb8; jpeg compressed bgr8', 'mp3', 'wave', 'S16LE', 'F32LE', 'hand', '39', '\x00', 'ü' * 300)
_BITS = re.compile(r'(u?)int(\d+)')


@lru_cache(maxsize=None)
def _numbers(field_type: str) -> st.SearchStrategy[int]:
    sign, bits = _BITS.fullmatch(field_type).groups()
    low, high = (0, 2 ** int(bits) - 1) if sign else (
        -2 ** (int(bits) - 1), 2 ** (int(bits) - 1) - 1)
    edges = [n for n in (low, -1, 0, 1, 2, 3, 16, 48, 10_000, 999_999_999, 1_000_000_000,
                         high // 2, high - 1, high) if low <= n <= high]
    return st.one_of(st.sampled_from(edges), st.integers(low, high))


_FLOATS = st.one_of(
    st.sampled_from([float('nan'), float('inf'), float('-inf'), 0.0, -0.0, -1.0, 1e-320, 1e308]),
    st.floats(width=32))
_TEXTS = st.one_of(st.sampled_from(_ENCODINGS), st.text(
    st.characters(exclude_categories=['Cs']), max_size=20))
_BYTES = st.one_of(
    st.sampled_from(['cut', 'none', 'twice', 'one more', 'ones']), st.binary(max_size=600))


@lru_cache(maxsize=None)
def _values(field_type: str) -> st.SearchStrategy[Any] | None:
    """Return values for a field of this type; None for what is not a leaf."""
    if field_type in ('sequence<uint8>', 'sequence<octet>'):
        return _BYTES
    if field_type == 'boolean':
        return st.booleans()
    if field_type in ('float', 'double'):
        return _FLOATS
    if field_type.startswith('string'):
        return _TEXTS
    if _BITS.fullmatch(field_type):
        return _numbers(field_type)
    if field_type.startswith('sequence<'):
        return st.integers(0, 6)  # so many copies of its first element
    return None


def _leaves(message: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Return every field down to the leaves, and sequences of messages both whole and inside."""
    for name, field_type in message.get_fields_and_field_types().items():
        here, value = (*path, name), getattr(message, name)
        if _values(field_type) is not None:
            yield here, field_type
        if hasattr(value, 'get_fields_and_field_types'):
            yield from _leaves(value, here)
        elif isinstance(value, list) and value and hasattr(
                value[0], 'get_fields_and_field_types'):
            yield from _leaves(value[0], (*here, 0))


def mutated(good: Any) -> st.SearchStrategy[Callable[[int], Any]]:
    """Return functions that make, for a stamp, a mutated copy of `good`."""
    change = st.sampled_from(list(_leaves(good))).flatmap(
        lambda leaf: st.tuples(st.just(leaf[0]), st.just(leaf[1]), _values(leaf[1])))
    wire, field_type = serialize_message(good), type(good)
    return st.lists(change, max_size=4).map(lambda changes: _maker(wire, field_type, changes))


def _maker(wire: bytes, field_type: type, changes: list[Change]) -> Callable[[int], Any]:
    def make(now_ns: int) -> Any:
        message = deserialize_message(wire, field_type)
        if hasattr(message, 'header'):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 10 ** 9)
        for path, leaf, value in changes:
            _set(message, path, leaf, value)
        return deserialize_message(serialize_message(message), field_type)
    return make


def _set(message: Any, path: Path, leaf: str, value: Any) -> None:
    """Set a field; an earlier change may have taken it away."""
    *way, last = path
    for step in way:
        if isinstance(step, int):
            if not len(message):
                return
            message = message[step]
        else:
            message = getattr(message, step)
    if leaf in ('sequence<uint8>', 'sequence<octet>'):
        value = array.array('B', _bytes(bytes(getattr(message, last)), value))
    elif leaf.startswith('sequence<'):
        value = _copies(list(getattr(message, last)), leaf, value)
    setattr(message, last, value)


def _bytes(good: bytes, value: Any) -> bytes:
    return {
        'cut': good[:-7], 'none': b'', 'twice': good * 2, 'one more': good + b'\x00',
        'ones': b'\xff' * len(good),
    }[value] if isinstance(value, str) else value


def _copies(good: list[Any], leaf: str, number: int) -> list[Any]:
    if good:
        return good[:1] * number
    package, _, name = leaf[len('sequence<'):].split('>')[0].split(',')[0].partition('/')
    return [getattr(import_module(f'{package}.msg'), name)() for _ in range(number)]
