"""
Read one file as the package does: `python -m fault_suite.reading KIND PATH`.

KIND is image, tar, video or checkpoint. Prints `rejected: SENTENCE` or `read: …`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Any

from karmma_ros.errors import KarmmaError


def _image(path: Path) -> Any:
    from karmma_ros.preprocess.compressed_image import decode_compressed
    import numpy as np
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return decode_compressed(data, description='', size=(112, 112))[1]


def _tar(path: Path) -> Any:
    from karmma_ros.media.tar import tar_index
    return tar_index(path, 'frame_{:010d}.jpg')


def _video(path: Path) -> Any:
    from karmma_ros.media.video_file import VideoFile
    return VideoFile(path).frames([0.0])


def _checkpoint(path: Path) -> Any:
    from karmma_ros.training.run import _step_of
    return _step_of(path)


READERS: dict[str, Callable[[Path], Any]] = {
    'image': _image, 'tar': _tar, 'video': _video, 'checkpoint': _checkpoint}


def main(file_type: str, path: str) -> None:
    """Read the file and print what came of it."""
    try:
        print('read:', str(READERS[file_type](Path(path)))[:200])
    except KarmmaError as error:
        print('rejected:', error)


if __name__ == '__main__':
    main(*sys.argv[1:])
