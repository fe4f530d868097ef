"""What a number was measured on."""

from __future__ import annotations

import os
import platform

import torch


def this_machine() -> str:
    """Name processor, cores and torch."""
    processor = platform.processor() or platform.machine()
    return f'{processor}, {os.cpu_count()} cores, torch {torch.__version__}'
