"""
The type of a modality: everything that the package needs to know of it, in one class.

A module of this package, or of another one, defines a subclass of `ModalityType`. The node, the
replay of bags, data sets, training and reports read from it what they need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import re
from typing import Any, ClassVar, Protocol, TYPE_CHECKING

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import DataError, InvalidSampleError
from karmma_ros.modalities.content_check import content_declarations, ContentCheck, Finding
from karmma_ros.modalities.corruption import Corruptible
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.sample_buffer import SampleBuffer, WindowSamples
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a robot reads no recordings and trains nothing
    from karmma_ros.media.sources import SharedFrames, Source, SourceOptions
    from torch import Tensor

Values = Mapping[str, Any]
"""The node's parameters by their full names."""


class InputMessage(Protocol):
    """A message of an input that may still have to be read; it is read only when it is wanted."""

    @property
    def modality(self) -> Modality:
        """Return the modality of its topic."""

    @property
    def type_name(self) -> str:
        """Return its type, such as `sensor_msgs/msg/Image`."""

    @property
    def message(self) -> Any:
        """
        Return the message itself.

        :raises InvalidSampleError: when it cannot be read.
        """

    @property
    def spec(self) -> ClipSpec:
        """Return the specification of the clips that it may become part of."""

    @property
    def stamp_ns(self) -> int:
        """
        Return its stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """

    def read(self) -> Any:
        """
        Return what `ModalityType.read` makes of it, which may have been computed before.

        :raises InvalidSampleError: when it cannot be read.
        """


class InputDecoder:
    """
    The messages of one input to samples, and the checks of their content.

    What is learned from messages is kept until `reset`.
    """

    def __init__(self, modality: Modality, values: Values, image_sizes: ImageSizes) -> None:
        """
        Read the parameters.

        :param image_sizes: of all cameras; a camera enters its own.
        :raises InvalidSettingError: for a value that cannot be used.
        """
        self.modality, self.values, self.image_sizes = modality, values, image_sizes
        self.findings: dict[str, Finding | None] = {}
        """Name of a content check → what it finds now."""
        self.reset()
        self.read_parameters()

    def read_parameters(self) -> None:
        """
        Read the parameters anew.

        :raises InvalidSettingError: for a value that cannot be used.
        """

    def parameter(self, name: str) -> Any:
        """Return the value of a parameter of this input."""
        return self.values[f'{self.modality}.{name}']

    def decode(self, received: InputMessage, now_ns: int) -> Any:
        """
        Return the sample of a message, and check its content.

        :raises InvalidSampleError: for a message that cannot be used.
        """
        return received.read()

    def stored(self, sample: Any, stamp_ns: int, now_ns: int) -> None:
        """Check the content of a sample that was stored."""

    restarts = False
    """Whether samples before the last one were decoded with another format, and are void."""

    def set_finding(self, check: str, finding: Finding | None) -> None:
        """Set what a content check finds now; the parameters that it names are this input's."""
        if finding is not None:
            finding = replace(finding, text=with_own_names(self.modality, finding.text))
        self.findings[check] = finding

    def apply_info(self, info: Any) -> str:
        """
        Use a message of the type's `info` topic.

        Return a sentence when it contradicts the parameters, else ''.
        """
        return ''

    def describe(self, received: InputMessage) -> str:
        """Return how a message is encoded, in a few words; '' where there is nothing to report."""
        return ''

    def reset(self) -> None:
        """Clear what was learned from messages."""
        self.findings.clear()


def with_own_names(modality: Modality, text: str) -> str:
    """Return a text in which the parameters of a type are those of a modality of it."""
    if not modality.suffix:
        return text
    return re.sub(rf'\b{modality.type_name}\.(?=[a-z])', f'{modality}.', text)


ImageSizes = dict[Modality, tuple[int, int]]
"""Camera → width and height of its newest image."""


@dataclass(frozen=True)
class InfoTopic:
    """A topic beside that of an input, whose latched message describes its data."""

    topic: str
    type_name: str
    of_types: tuple[str, ...]
    """Message types of the input that it describes."""


def header_of(message: Any) -> Any:
    """Return the header of a message, or of its first marker that adds; None without one."""
    header = getattr(message, 'header', None)
    markers: Sequence[Any] = getattr(message, 'markers', ()) if header is None else ()
    adding = (each for each in markers if each.action == 0)  # DELETEALL, often first, has no stamp
    return next(adding, markers[0]).header if markers else header


def stamp_ns_of(header: Any) -> int:
    """
    Return header.stamp, nanoseconds; 0 where the publisher set none.

    :raises InvalidSampleError: for a time before 1970, which no clock gives.
    """
    stamp_ns = int(header.stamp.sec * NANOSECONDS + header.stamp.nanosec)
    if stamp_ns < 0:
        raise InvalidSampleError(f'header.stamp: got {stamp_ns / NANOSECONDS} s; expected 0 or '
                                 'more')
    return stamp_ns


class ModalityType(Corruptible, ABC):
    """
    One modality of a type: what is specific to it, from messages and files to inputs.

    An instance is of one modality, `rgb` or `rgb_wrist`; `modality_type` returns it.
    """

    name: ClassVar[str]
    """Of the type, as in the registry."""
    letter: ClassVar[str]
    """In names of subsets, a single one."""
    sensor: ClassVar[str]
    """What reports call its source: `the camera`."""
    what: ClassVar[str]
    """What the parameter `enabled` switches off: `the camera for RGB`."""
    silence: ClassVar[str]
    """After what time without it the input is stale: `an image after which it is stale`."""
    spec_class: ClassVar[type[Any]]
    """The frozen dataclass of its specification, with defaults for every field."""
    spec_field: ClassVar[str] = ''
    """Its field of `ClipSpec`, of the paper's modalities; empty: its entry of `inputs`."""
    derived_from: ClassVar[str] = ''
    """Type whose samples it can be computed from; empty: it needs a topic of its own."""
    is_image: ClassVar[bool] = False
    """Whether its input is made of images: then it has encoders of torchvision and timm."""
    has_frames: ClassVar[bool] = False
    """Whether its samples are the frames of the clip (`FrameSamples`), which inference waits for
    and an encoder may take in chunks."""
    skips_first: ClassVar[bool] = False
    """Whether the first frame of a clip repeats the second, as one that is a difference does."""
    message_types: ClassVar[tuple[str, ...]] = ()
    """Names of the message types that are decoded, preferred ones first."""
    topic: ClassVar[str] = ''
    """Relative name of its topic; empty: its own name."""
    compressed_suffix: ClassVar[str] = '/compressed'
    """What image_transport appends to a topic for the compressed images that are decoded."""
    info: ClassVar[InfoTopic | None] = None
    depth: ClassVar[int] = 5
    """Messages that its subscription keeps."""
    timeout: ClassVar[float] = 0.5
    """Default of the parameter `timeout`, seconds."""
    unsupported: ClassVar[Mapping[str, str]] = {}
    """Message type that has its data in a form that is not read → what to do about it; `{topic}`
    stands for the name of the topic."""
    unsupported_names: ClassVar[tuple[str, str]] = ('', '')
    """Pattern of the names of other such types, and what to do about them."""
    read_with: ClassVar[tuple[str, ...]] = ()
    """Its parameters that decide how a message is read, such as a unit: when one has changed, the
    samples before are void."""
    decoder: ClassVar[type[InputDecoder]] = InputDecoder
    content_check: ClassVar[type[ContentCheck] | None] = None
    """Finds samples that are valid and show nothing; None: it has no such check."""
    packs_samples: ClassVar[bool] = False
    """Whether a data pack holds its samples, an array that `prepare` takes; else its input."""
    encoders: ClassVar[Mapping[str, tuple[str, Mapping[str, Any]]]] = {}
    """Preset → name and options of the encoder that it has for this modality."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def source(self, clip: ClipSpec) -> Modality | None:
        """Return the modality that it can be computed from, None without one."""
        return self.modality.sibling(self.derived_from) if self.derived_from else None

    @property
    def label(self) -> str:
        """Return what reports call its source: `the camera`, or `the camera (wrist)`."""
        suffix = self.modality.suffix
        return f'{self.sensor} ({suffix})' if suffix else self.sensor

    @property
    def takes_chunks(self) -> bool:
        """Whether some of its frames can be prepared without the others (`prepare_frames`)."""
        return type(self).prepare_frames is not ModalityType.prepare_frames

    @property
    def topic_name(self) -> str:
        """Return the relative name of its topic, to be remapped."""
        return self.named(self.topic or self.name)

    def named(self, topic: str) -> str:
        """Return a relative topic with the suffix of this modality."""
        return f'{topic}_{self.modality.suffix}' if self.modality.suffix else topic

    def spec(self, clip: ClipSpec) -> Any:
        """Return its specification."""
        return clip.of(self.modality)

    def declarations(self) -> tuple[Declaration, ...]:
        """Return the parameters of its input: those that all have, and its own."""
        name = self.modality
        return (
            Declaration(f'{name}.enabled', True,
                        f'Use {self.what}; false unsubscribes and discards what was received.'),
            Declaration(f'{name}.timeout', self.timeout, f'Seconds without {self.silence}.',
                        (0.05, 60.0)),
            Declaration(f'{name}.min_coverage', 0.5, 'Fraction of the window that must be covered '
                        'before this input counts as available.', (0.01, 1.0)),
            Declaration(f'{name}.qos', 'auto', 'sensor_data receives from every publisher; '
                        'reliable has lost messages sent again, from reliable publishers only; '
                        'auto takes reliable when every publisher offers it.',
                        choices=('auto', 'sensor_data', 'reliable')),
            *(content_declarations(name, self.content_check) if self.content_check else ()),
            *self.parameters(),
        )

    @abstractmethod
    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return the shape of the network's input, without the batch."""

    def clip_fields(self, clip: ClipSpec) -> dict[str, Any]:
        """Return every field of a clip's specification that decides its input, by name."""
        prefix = self.spec_field or f'inputs.{self.modality}'
        fields = {f'{prefix}.{name}': value for name, value in asdict(self.spec(clip)).items()}
        frames = {'num_frames': clip.num_frames} if self.has_frames else {}
        return {'duration': clip.duration, **frames, **fields}

    def noise(self, clip: ClipSpec, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a valid input of random values."""
        return rng.standard_normal(self.input_shape(clip), np.float32)

    @abstractmethod
    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """
        Return the network's input from the samples of a window, in training and live alike.

        :raises InvalidSampleError: for another type or shape, NaN or infinity.
        """

    def prepare_frames(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from some of the frames of a window (`has_frames`)."""
        raise NotImplementedError(f'the samples of {self.name} are no frames')

    @property
    def prepares_batches(self) -> bool:
        """Whether the inputs of a batch can be prepared on a device (`prepare_batch`)."""
        return type(self).prepare_batch is not ModalityType.prepare_batch

    def begin(self, arrays: Any, clip: ClipSpec) -> NDArray[Any]:
        """
        Prepare what a processor should, and return what `prepare_batch` takes: few bytes.

        :param arrays: as `prepare` takes them, where `packs_samples`.
        :raises InvalidSampleError: as `prepare`.
        """
        return np.asarray(arrays)

    def prepare_batch(self, samples: Tensor, clip: ClipSpec) -> Tensor:
        """
        Return the inputs of a batch on its device, the same as those of `prepare`.

        :param samples: `[b, …]`, each as `begin` returns it.
        """
        raise NotImplementedError(f'{self.name} is prepared sample by sample')

    @abstractmethod
    def buffer(self, clip: ClipSpec) -> SampleBuffer:
        """Return an empty buffer."""

    def read(self, message: Any, type_name: str, clip: ClipSpec, values: Values) -> Any:
        """
        Read the fields of a message; done once for several streams, in any thread.

        :raises InvalidSampleError: for a message that cannot be read.
        """
        raise InvalidSampleError(f'{self.modality}: {type_name} cannot be read')

    def rank(self, encoding: str) -> int:
        """
        Return how well a topic of images fits; 0 if it does not.

        :param encoding: of its first message, or the format of a compressed one.
        """
        return 1

    def parameters(self) -> Iterable[Declaration]:
        """Return the parameters of its own, with full names."""
        return ()

    def type_name(self, values: Values) -> str:
        """Return the message type that the parameters choose."""
        name = f'{self.modality}.type'
        return str(values[name]) if name in values else self.message_types[0]

    def derivation(self, clip: ClipSpec) -> Callable[[Any], WindowSamples]:
        """Return what computes its samples from those of its source; it may hold a cache."""
        raise NotImplementedError(f'{self.name} cannot be computed from another modality')

    def is_derived(self, values: Values) -> bool:
        """Return whether the parameters have it computed, instead of received on a topic."""
        return bool(self.derived_from) and values.get(f'{self.modality}.source') != 'topic'

    def open_source(self, path: Path, options: SourceOptions) -> Source:
        """
        Open a file or folder of a data set; nothing of it is read yet.

        :raises DataError: stating what is expected, for one that cannot be its data.
        """
        raise DataError(path, f'expected no column {self.modality}: {self.name} is not read from '
                        'files', 'remove the column')

    def computed_source(self, source: Any) -> Source:
        """Return the source of what is computed from the recording of `self.source`."""
        raise NotImplementedError(f'{self.name} cannot be computed from another modality')

    def read_window(
        self, source: Any, start_s: float, clip: ClipSpec, frames: SharedFrames,
    ) -> Any:
        """
        Read a window of a recording: return what `prepare` takes.

        :param source: as `open_source` returns it, or another that gives the same.
        :param start_s: second of the recording at which the window begins.
        :param frames: camera frames that other modalities of this window may need.
        :raises DataError: when it cannot be read.
        """
        raise NotImplementedError(f'{self.name} is not read from files')

    def augment(self, x: Tensor, strength: float, rand: Callable[..., Tensor]) -> Tensor:
        """
        Return a batch of inputs `[b, …]`, varied at random for training; x itself stays.

        :param strength: above 0, to 1 (full range).
        :param rand: from a shape, whose first size is b, to numbers uniform in [0, 1).
        """
        return x

    def check_derivation(self, clip: ClipSpec) -> None:
        """
        Check that it can be computed from its source for such clips.

        :raises InvalidSettingError: when it cannot.
        """
