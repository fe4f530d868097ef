"""When to run inference: once per tick of the rate, in step with the camera."""

from __future__ import annotations


class InferenceTrigger:
    """
    Run inference once per tick, delayed to the next frame that fills a clip slot.

    A clip shows one frame for each slot in time, so that a window between two of them would show
    the network nothing new from the camera. A tick without such a frame before the next tick runs
    inference at that next tick. There are as many inferences as ticks, each on the newest data.
    """

    def __init__(self, every_frame: bool = False) -> None:
        """
        Wait for the first tick.

        :param every_frame: run inference at each frame, whether a tick is due or not: a streaming
            network has a window when a hop is complete, and none before.
        """
        self._every_frame = every_frame
        self._due = False
        self._newest_ns: int | None = None

    def on_tick(self) -> bool:
        """Return whether to run inference now: no frame came since the last tick."""
        waited, self._due = self._due, True
        return waited

    def on_frame(self, newest_ns: int | None) -> bool:
        """
        Return whether to run inference now, after a message.

        :param newest_ns: the stamp of the newest frame that a clip may show; None without.
        """
        shown = newest_ns is not None and newest_ns != self._newest_ns
        self._newest_ns = newest_ns
        if not shown or not (self._due or self._every_frame):
            return False
        self._due = False
        return True
