"""The state of each modality."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from karmma_ros.modality import Modality


class ModalityState(IntEnum):
    """The numbers of `karmma_msgs/ModalityStatus`."""

    DISABLED = 0
    """By a setting, or the model does not take it."""
    NEVER_RECEIVED = 1
    STALE = 2
    """The last good sample is older than the timeout."""
    INSUFFICIENT = 3
    """Fresh, but the window is not covered well enough."""
    INVALID = 4
    """Messages arrive, but none can be used."""
    AVAILABLE = 5
    UNINFORMATIVE = 6
    """Messages arrive and can be used, but show nothing: a covered lens, a muted microphone."""

    @property
    def label(self) -> str:
        """Return the state in a word or two, for a short line."""
        return _LABELS[self]

    @property
    def description(self) -> str:
        """Return what the state means, for people."""
        return _DESCRIPTIONS[self]


_LABELS = {
    ModalityState.DISABLED: 'disabled', ModalityState.NEVER_RECEIVED: 'never received',
    ModalityState.STALE: 'stale', ModalityState.INSUFFICIENT: 'not enough yet',
    ModalityState.INVALID: 'unreadable', ModalityState.AVAILABLE: 'available',
    ModalityState.UNINFORMATIVE: 'shows nothing',
}
_DESCRIPTIONS = {
    ModalityState.DISABLED: 'not used: switched off, or the model does not take it',
    ModalityState.NEVER_RECEIVED: 'nothing received yet',
    ModalityState.STALE: 'stale: its last good sample is older than the timeout',
    ModalityState.INSUFFICIENT: 'insufficient: fresh, but the window is not covered well enough',
    ModalityState.INVALID: 'invalid: messages arrive, but none can be used',
    ModalityState.AVAILABLE: 'available',
    ModalityState.UNINFORMATIVE:
        'uninformative: messages arrive, but show nothing (covered, muted, frozen or the like)',
}


@dataclass(frozen=True)
class ModalityStatus:
    """One modality, whether it can be used, and why not."""

    modality: Modality
    state: ModalityState
    last_stamp_ns: int = 0
    """Source stamp of the newest sample; 0 if there was none."""
    age_ns: int = -1
    """Time since the last good sample was received; -1 if there was none."""
    timeout_ns: int = 0
    """Age above which the modality is stale."""
    num_samples: int = 0
    """Frames, audio samples or detection messages in the window."""
    rate: float = 0.0
    """Good messages a second, Hz, of late."""
    dropped: int = 0
    """Messages that could not be used, since the start."""
    detail: str = ''
    """Why it is not available, for people; empty when it is."""
    warning: str = ''
    """What seems wrong with the content of its messages, and what to set; empty when nothing."""

    @property
    def available(self) -> bool:
        """Return whether the network may be given this modality."""
        return self.state is ModalityState.AVAILABLE

    @property
    def warning_line(self) -> str:
        """Return the warning as a line of its own, which names the modality."""
        named = self.warning.startswith(f'{self.modality} ')
        return self.warning if named else f'{self.modality}: {self.warning}'
