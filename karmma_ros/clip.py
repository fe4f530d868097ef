"""
The input of the network: the specification of a clip, and one clip.

The specification travels inside the model bundle, so that a robot prepares its
sensor data exactly as the training did.

Shape legend: t frames, h height, w width, k audio tiles, f mel bands, s mel steps,
n boxes a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, load_type, Modality, register, REGISTRY
import numpy as np
from numpy.typing import NDArray

NANOSECONDS = 1_000_000_000
"""Nanoseconds in a second."""

MOST_SECONDS, MOST_HERTZ = 600, 384_000
"""Limits of what a model may require: a window is held in memory."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CropSize = tuple[int, int] | tuple[int, int, tuple[int, ...]]
"""Height and width of a crop, and `VideoSpec.resize` where it is set."""

KALDI_FBANK = 'kaldi_fbank'
AUDIO_FEATURES = ('decibels', KALDI_FBANK)

FLOW_PRESETS = ('ultrafast', 'fast', 'medium')
"""Presets of DIS, the estimator of flow (Kroeger et al., ECCV 2016), by quality."""

BOX_PAD, BOX_HAND, BOX_OBJECT = 0, 1, 2
"""Box categories as STLT numbers them (Radevski et al., BMVC 2021)."""


@dataclass(frozen=True)
class VideoSpec:
    """How a camera frame becomes a model frame: resize, centre crop, normalise."""

    height: int = 224
    """Height of the crop, pixels."""
    width: int = 224
    """Width of the crop, pixels."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from each channel, scaled to 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Each channel is then divided by this."""
    resize: tuple[int, ...] = ()
    """What a frame is resized to before the crop, pixels: `[short side]` keeps its aspect ratio,
    `[height, width]` does not. Empty: to the smallest size that the crop fits into."""

    def __post_init__(self) -> None:
        _positive('clip.video', self, 'height', 'width')
        short, both = [max(self.height, self.width)], [self.height, self.width]
        if not (isinstance(self.resize, tuple) and len(self.resize) <= 2 and all(
                isinstance(side, int) and side >= least
                for side, least in zip(self.resize, ([], short, both)[len(self.resize)]))):
            raise InvalidSettingError(
                'clip.video.resize', self.resize, f'[short side] from {short} on, or [height, '
                f'width] from {both} on', 'the crop is taken from it')

    @property
    def crop_size(self) -> CropSize:
        """Return how frames are resized and cropped, as `resize_and_crop` takes it."""
        size = self.height, self.width
        return (*size, self.resize) if self.resize else size


@dataclass(frozen=True)
class FlowSpec:
    """How dense flow becomes a (u, v, 0) image; it has the size of the video crop, or a part."""

    bound: float = 20.0
    """Displacements are clipped to ±bound pixels of the video crop per sampled frame, then mapped
    to 0..255."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from each channel, scaled to 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Each channel is then divided by this."""
    camera: str = ''
    """Modality whose frames it is computed from; empty: `rgb`, or the one with its suffix."""
    preset: str = 'medium'
    """How it is estimated: `medium`, `fast` in a third of the time, or `ultrafast`."""
    scale: int = 1
    """Of how many pixels of the video crop, each way, it has one: 2 estimates it at half the
    height and width, in a quarter of the time, and so is its encoder."""

    def __post_init__(self) -> None:
        _positive('clip.flow', self, 'bound', 'scale')
        if self.preset not in FLOW_PRESETS:
            raise InvalidSettingError('clip.flow.preset', self.preset, ', '.join(FLOW_PRESETS))
        if self.camera and Modality.parse(self.camera).type_name != 'rgb':
            raise InvalidSettingError('clip.flow.camera', self.camera, 'a modality of type rgb')


    @property
    def own_bound(self) -> float:
        """Return the bound in pixels of its own size."""
        return self.bound / self.scale

    @property
    def estimation(self) -> tuple[float, str, int]:
        """Return how it is computed from frames, as `clip_flow` and `estimate_flow` take it."""
        return self.own_bound, self.preset, self.scale

    def crop_size(self, video: VideoSpec) -> CropSize:
        """Return how flow of other sizes is resized and cropped beside such a video."""
        height, width = video.height // self.scale, video.width // self.scale
        resize = tuple(side // self.scale for side in video.resize)
        return (height, width, resize) if resize else (height, width)


@dataclass(frozen=True)
class AudioSpec:
    """
    How audio becomes log-mel tiles; the defaults are those of Radevski et al.

    Tile i is centred on (i + 0.5) / tiles of the window and zero-padded at its borders.
    """

    sample_rate: int = 16_000
    """Hz, mono."""
    n_fft: int = 1024
    """Samples of one Fourier transform, zero-padded from the window."""
    win_length: int = 160
    """Samples of one window of the spectrogram."""
    hop_length: int = 80
    """Samples from one spectrogram column to the next."""
    n_mels: int = 128
    """Mel bands of the spectrogram."""
    tiles: int = 32
    """Tiles in a clip; the paper takes one for each video frame."""
    tile_steps: int = 224
    """Spectrogram columns of one tile: it spans tile_steps × hop_length samples."""
    mean: float = -28.1125
    """Decibels subtracted from the spectrogram."""
    std: float = 16.5627
    """Decibels by which it is then divided."""
    features: str = 'decibels'
    """`decibels` of the power in each mel band, or `kaldi_fbank`: Kaldi's features, as
    `torchaudio.compliance.kaldi.fbank` has them, in one tile that begins with the window."""
    tile_duration: float = 0.0
    """Seconds of tiles that are spectrograms of their own, centred to the sample, as those of
    Radevski et al. 0: tiles are cut out of one spectrogram, at its columns, in less time."""

    def __post_init__(self) -> None:
        _positive('clip.audio', self, 'sample_rate', 'n_fft', 'win_length', 'hop_length',
                  'n_mels', 'tiles', 'tile_steps', 'std')
        _at_most('clip.audio', self, 'sample_rate', MOST_HERTZ)
        if self.win_length > self.n_fft:
            raise InvalidSettingError(
                'clip.audio.win_length', self.win_length, f'at most n_fft = {self.n_fft}')
        if self.features not in AUDIO_FEATURES:
            raise InvalidSettingError(
                'clip.audio.features', self.features, ' or '.join(AUDIO_FEATURES))
        if self.features == KALDI_FBANK and self.tiles != 1:
            raise InvalidSettingError('clip.audio.tiles', self.tiles, f'1 of {KALDI_FBANK}')
        if self.tile_duration and (
                self.features == KALDI_FBANK
                or 1 + self.tile_samples // self.hop_length != self.tile_steps):
            raise InvalidSettingError(
                'clip.audio.tile_duration', self.tile_duration, f'0, or the length of '
                f'{self.tile_steps} columns of decibels in seconds')

    @property
    def tile_samples(self) -> int:
        """Return the samples of a tile that is a spectrogram of its own."""
        return int(self.tile_duration * self.sample_rate)


@dataclass(frozen=True)
class DetectionSpec:
    """How boxes become an array: (x1, y1, x2, y2, category) in units of the image's size."""

    max_boxes: int = 8
    """Boxes kept a frame; hands first, then by descending score."""

    def __post_init__(self) -> None:
        _positive('clip.detections', self, 'max_boxes')


@dataclass(frozen=True)
class ClipSpec:
    """
    Everything that decides how timed sensor data becomes the network's input.

    >>> from karmma_ros.clip import ClipSpec, VideoSpec
    >>> from karmma_ros.modality import Modality
    >>> ClipSpec(num_frames=16, video=VideoSpec(112, 112)).input_shape(Modality.RGB)
    (3, 16, 112, 112)
    """

    duration: float = 2.0
    """Length of the window, seconds."""
    num_frames: int = 32
    """Frames sampled evenly from the window (t)."""
    video: VideoSpec = field(default_factory=VideoSpec)
    flow: FlowSpec = field(default_factory=FlowSpec)
    audio: AudioSpec = field(default_factory=AudioSpec)
    detections: DetectionSpec = field(default_factory=DetectionSpec)
    inputs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Specification of each other modality by name, as a mapping or of its type's class, such as
    `{rgb_wrist: {height: 112, width: 112}}`. A mapping may name the class of a type that no
    package registers: `{gaze: {type: my_package.gaze:Gaze}}`; its code is run."""

    def __post_init__(self) -> None:
        _positive('clip', self, 'duration', 'num_frames')
        _at_most('clip', self, 'duration', MOST_SECONDS)
        object.__setattr__(self, 'inputs', {
            (modality := _input_name(name, value)): _input_spec(modality, value)
            for name, value in self.inputs.items()})

    def of(self, modality: Modality) -> Any:
        """Return the specification of a modality; without one of its own, that of its type."""
        if modality in self.inputs:
            return self.inputs[modality]
        if modality.suffix:
            return self.of(Modality(modality.type_name))
        own = _type(modality)
        return getattr(self, own.spec_field) if own.spec_field else own.spec_class()

    @property
    def duration_ns(self) -> int:
        """Length of the window, nanoseconds."""
        return round(self.duration * NANOSECONDS)

    @property
    def frame_period_ns(self) -> int:
        """Time between two sampled frames, nanoseconds."""
        return self.duration_ns // self.num_frames

    @property
    def audio_samples(self) -> int:
        """Audio samples in the window."""
        return round(self.duration * self.audio.sample_rate)

    def input_shape(self, modality: Modality) -> tuple[int, ...]:
        """
        Return the shape of one modality's float32 input, without a batch dimension.

        RGB and flow `[3, t, h, w]`, audio `[k, f, s]`, detections `[t, n, 5]`.
        """
        shape: tuple[int, ...] = _type(modality).input_shape(self)
        return shape

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; `from_dict` reads it back."""
        mapping = asdict(self)
        # What is not set has no key, as before there was any.
        if not self.flow.camera:
            del mapping['flow']['camera']
        inputs = {str(name): value for name, value in mapping.pop('inputs').items()}
        for spec, fields_of in [(self.video, mapping['video']), (self.audio, mapping['audio']),
                                (self.flow, mapping['flow']),
                                *((self.inputs[name], inputs[str(name)]) for name in self.inputs)]:
            if isinstance(spec, VideoSpec) and not spec.resize:
                del fields_of['resize']
            for name in _LATER.get(type(spec), ()):
                if getattr(spec, name) == getattr(type(spec), name):
                    del fields_of[name]
        return {**mapping, 'inputs': inputs} if inputs else mapping

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ClipSpec:
        """
        Build from a mapping as `to_dict` gives it.

        :raises InvalidSettingError: for a field that does not exist or a value out of range.
        """
        parts = {'video': VideoSpec, 'flow': FlowSpec, 'audio': AudioSpec,
                 'detections': DetectionSpec}
        values: dict[str, Any] = {}
        for name, value in mapping.get('inputs', {}).items():
            if _TYPE in value:
                raise InvalidSettingError(
                    f'clip.inputs.{name}.{_TYPE}', value[_TYPE], 'none',
                    'the specification of a stored model names no code')
        for key, value in _known('clip', cls, mapping).items():
            part = parts.get(key)
            values[key] = value if part is None else part(**_known(f'clip.{key}', part, value))
        return cls(**values)


@dataclass(frozen=True)
class Clip:
    """
    One clip, ready for the network: an input for each modality that is present.

    >>> from karmma_ros.clip import Clip, ClipSpec
    >>> from karmma_ros.modality import Modality
    >>> import numpy as np
    >>> audio = np.zeros(ClipSpec().input_shape(Modality.AUDIO), np.float32)
    >>> [str(modality) for modality in Clip({Modality.AUDIO: audio}).inputs]
    ['audio']
    """

    inputs: Mapping[Modality, NDArray[np.float32]]
    """float32 arrays shaped as `ClipSpec.input_shape` returns; an absent modality has no key."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return the modalities that are present, in canonical order."""
        return in_order(self.inputs)


def _type(modality: Modality) -> Any:
    """Return the type of a modality, which is defined above this module."""
    return load_type(modality.type_name, REGISTRY[modality.type_name].location)(modality)


_LATER: Mapping[type, tuple[str, ...]] = {
    AudioSpec: ('features', 'tile_duration'),
    FlowSpec: ('preset', 'scale'),
}
"""Fields that were added: stored models without them mean the default."""

_TYPE = 'type'
"""Key of a specification for the class of its modality's type."""


def _input_name(name: str, value: Any) -> Modality:
    if isinstance(value, Mapping) and _TYPE in value:
        register(name, value[_TYPE])
    return Modality(name)


def _input_spec(modality: Modality, value: Any) -> Any:
    own = _type(modality)
    if own.spec_field and not modality.suffix:
        raise InvalidSettingError(
            'clip.inputs', modality, 'other modalities', f'set clip.{own.spec_field}')
    if isinstance(value, own.spec_class):
        return value
    if not isinstance(value, Mapping):
        raise InvalidSettingError(
            f'clip.inputs.{modality}', value, f'a mapping of fields of {own.spec_class.__name__}')
    fields = {key: each for key, each in value.items() if key != _TYPE}
    return own.spec_class(**_known(f'clip.inputs.{modality}', own.spec_class, fields))


def _positive(prefix: str, spec: object, *names: str) -> None:
    for name in names:
        value = getattr(spec, name)
        if not value > 0:
            raise InvalidSettingError(f'{prefix}.{name}', value, 'a number above 0')


def _at_most(prefix: str, spec: object, name: str, most: float) -> None:
    value = getattr(spec, name)
    if not value <= most:
        raise InvalidSettingError(f'{prefix}.{name}', value, f'a number up to {most}')


def _known(prefix: str, cls: type, mapping: Mapping[str, Any]) -> dict[str, Any]:
    names = [f.name for f in fields(cls)]
    for key in mapping:
        if key not in names:
            raise InvalidSettingError(f'{prefix} field', key, ', '.join(names))
    return {k: tuple(v) if isinstance(v, list) else v for k, v in mapping.items()}
