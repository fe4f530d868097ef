"""Arrays on disk that are filled bit by bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


def lay_out(path: Path, kind: Any, shape: tuple[int, ...]) -> None:
    """
    Make a .npy file of zeros and claim its space.

    A disk that is too full says so now, by an OSError: later, while the file is written
    through memory, it would end the process.
    """
    array = np.lib.format.open_memmap(path, 'w+', kind, shape)
    size = os.path.getsize(path)
    del array
    if hasattr(os, 'posix_fallocate') and size:
        with path.open('r+b') as file:
            os.posix_fallocate(file.fileno(), 0, size)
