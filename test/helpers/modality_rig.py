"""Inputs of any modalities: their parameters, decoders and stream, without a node."""

from collections.abc import Iterable
from types import SimpleNamespace as Fields
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityStatus
from karmma_ros.stream.ingest import MessageIngest, ReceivedMessage
from karmma_ros.stream.settings import make_stream
from rosbags.typesys import get_typestore, Stores

MS = 1_000_000
T0_NS = 1_700_000_000 * NANOSECONDS
"""The clock of a test starts here."""
STORE = get_typestore(Stores.ROS2_HUMBLE)


def declared(modalities: Iterable[Modality], **changes: Any) -> dict[str, Any]:
    """Return the parameters of the inputs; `imu__enabled=False` changes one."""
    values = {each.name: each.default for modality in modalities
              for each in modality_type(modality).declarations()}
    changed = {name.replace('__', '.'): value for name, value in changes.items()}
    assert changed.keys() <= values.keys()
    return {**values, **changed}


def header(stamp_ns: int) -> Any:
    """Return a header as rosbags makes it."""
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    time = STORE.types['builtin_interfaces/msg/Time'](sec=sec, nanosec=nanosec)
    return STORE.types['std_msgs/msg/Header'](stamp=time, frame_id='sensor')


def recorded(type_name: str, message: Any) -> Any:
    """Return a message as rosbags reads it from a bag."""
    return STORE.deserialize_cdr(STORE.serialize_cdr(message, type_name), type_name)


def point(x: float, y: float, z: float = 0.0) -> Fields:
    """Return a point, or a vector."""
    return Fields(x=x, y=y, z=z)


class ModalityRig:
    """A stream, its decoders and a clock that starts at `T0_NS`."""

    def __init__(self, spec: ClipSpec, *names: str, **changes: Any) -> None:
        self.modalities = tuple(map(Modality, names))
        self.spec, self.values = spec, declared(self.modalities, **changes)
        self.stream = make_stream(spec, self.modalities, self.values, ())
        self.ingest = MessageIngest(self.values)
        self.ingest.feed(self.stream)
        self.now_ns = T0_NS

    def take(self, name: str, type_name: str, message: Any) -> str:
        """Receive a message now; return why it was dropped, or ''."""
        return self.ingest.add(
            ReceivedMessage(Modality(name), type_name, message, self.spec, self.values),
            self.now_ns)

    def status(self, name: str) -> ModalityStatus:
        """Return the status of an input."""
        return {s.modality: s for s in self.stream.assess(self.now_ns)}[Modality(name)]

    @property
    def available(self) -> str:
        """Return the letters of the available inputs."""
        return ' '.join(s.modality.letter for s in self.stream.assess(self.now_ns) if s.available)
