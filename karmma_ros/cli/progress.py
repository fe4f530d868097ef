"""Progress bars, one for each task."""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.errors import printable
from rich.markup import escape
from rich.progress import Progress, TaskID


class Bars(Progress):
    """
    Show the progress of several tasks; call it with name, done and total.

    A task without anything to do gets no bar.
    """

    def __init__(self) -> None:
        super().__init__()
        self._named: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show a task, or update its progress."""
        if what not in self._named:
            self._named[what] = self.add_task(escape(printable(what, 80)), total=total)
        self.update(self._named[what], completed=done, total=total)

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Show a task, and return what adds to its progress."""
        done = 0

        def add(samples: int) -> None:
            nonlocal done
            done += samples
            self(what, done, total)

        add(0)
        return add

    def done(self, what: str) -> int:
        """Return how much of a task is done."""
        return int(self.tasks[self._named[what]].completed) if what in self._named else 0

    def print_line(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line)
