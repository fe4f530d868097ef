"""What is wrong with data on a disk, as a sentence."""

from __future__ import annotations

from pathlib import Path

from karmma_ros.errors import KarmmaError


class DataError(KarmmaError):
    """A file or folder of a data set is missing, damaged or says what it may not."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = Path(path), problem, remedy
        super().__init__(f'data {path}: {problem}: {remedy}')

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.problem, self.remedy)
