"""What is wrong with data on a disk, as a sentence."""

from __future__ import annotations

from karmma_ros.errors import PathError


class DataError(PathError):
    """A file or folder of a data set is missing, damaged or says what it may not."""

    what = 'data'
