"""Arrays on disk that are filled bit by bit, and what they were made from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

METADATA = 'metadata.json'
"""Beside the arrays: everything that decides what is in them."""


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


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """Give what a folder of arrays was made from; None, if it does not say."""
    try:
        found = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and 'version' in found else None
