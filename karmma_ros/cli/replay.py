"""`karmma replay BAG`: start the player, which needs ROS, as a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
import signal
import subprocess
import sys


def main(arguments: Sequence[str]) -> int:
    """Play a bag; the options are the player's (`karmma replay --help`)."""
    player = subprocess.Popen([sys.executable, '-m', 'karmma_ros.node.player', *arguments])
    before = signal.signal(signal.SIGTERM, lambda *_: player.terminate())
    try:
        return _wait(player)
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(player: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return player.wait()
        except KeyboardInterrupt:
            # The terminal has sent the player its own SIGINT: wait for its last line.
            continue
