"""The check of type and shape of every input array."""

from __future__ import annotations

from typing import Any

from karmma_ros.errors import InvalidSampleError
import numpy as np
from numpy.typing import NDArray


def check_array(
    name: str,
    array: NDArray[Any],
    dtype: type[np.generic],
    shape: tuple[int | str, ...],
    allow_empty: bool = False,
) -> None:
    """
    Check the type and the shape of an array, such as `('t', 'h', 'w', 3)`.

    A number is an exact length; a letter is any length of at least one (zero too with
    `allow_empty`).

    :raises InvalidSampleError: naming the array, what it is and what was expected.
    """
    is_array = isinstance(array, np.ndarray)
    if is_array and array.dtype == dtype and _fits(array.shape, shape, allow_empty):
        return
    got = f'{array.dtype} {_brackets(array.shape)}' if is_array else f'a {type(array).__name__}'
    wanted = f'{np.dtype(dtype)} {_brackets(shape)}'
    empty = '' if allow_empty else ', none of them empty'
    raise InvalidSampleError(f'{name}: got {got}; expected {wanted}{empty}')


def _fits(got: tuple[int, ...], wanted: tuple[int | str, ...], allow_empty: bool) -> bool:
    return len(got) == len(wanted) and all(
        size == want if isinstance(want, int) else allow_empty or size > 0
        for size, want in zip(got, wanted)
    )


def _brackets(shape: tuple[int | str, ...]) -> str:
    return '[' + ', '.join(str(size) for size in shape) + ']'
