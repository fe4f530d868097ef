"""When a node looks for a window: at its rate, in step with the camera."""

from __future__ import annotations


class InferenceTrigger:
    """
    Decide when to look for a window, as ticks of a rate and pictures come.

    A clip shows one picture for each slot in time: between two of them the camera has no news
    for the network. So a tick does not look at once but leaves it to the next picture that a
    clip will show, and the next tick does what no picture did. There are as many looks as ticks,
    and what is seen is as fresh as can be.
    """

    def __init__(self, every_picture: bool = False) -> None:
        """
        Wait for the first tick.

        :param every_picture: look at each picture, tick or not: a streaming network has a window
            when a hop is complete, and none before.
        """
        self._every_picture = every_picture
        self._due = False
        self._newest_ns: int | None = None

    def tick(self) -> bool:
        """Take note of a tick, and tell whether to look now: no picture came since the last."""
        waited, self._due = self._due, True
        return waited

    def picture(self, newest_ns: int | None) -> bool:
        """
        Take note of what is newest after a message, and tell whether to look now.

        :param newest_ns: the stamp of the newest picture that a clip may show; None without.
        """
        shown = newest_ns is not None and newest_ns != self._newest_ns
        self._newest_ns = newest_ns
        if not shown or not (self._due or self._every_picture):
            return False
        self._due = False
        return True
