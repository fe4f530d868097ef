"""What may be wrong with a bag as a whole."""

from __future__ import annotations

from pathlib import Path

from karmma_ros.errors import KarmmaError


class BagError(KarmmaError):
    """A bag, or what is wanted of it, cannot be read."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = Path(path), problem, remedy
        super().__init__(f'bag {path}: {problem}: {remedy}')

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.problem, self.remedy)
