"""The parameters of the nodes: defaults, ranges and descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from karmma_ros.errors import InvalidSettingError, is_printable
from karmma_ros.model.backends import AUTO, WANTED
from karmma_ros.stream.events import EventSettings
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


@dataclass(frozen=True)
class Declaration:
    """One parameter; a change takes effect at the next result, unless it is `fixed`."""

    name: str
    default: Any
    """Its type is the type of the parameter."""
    description: str
    range: tuple[float, float] | None = None
    """Lowest and highest value, both allowed."""
    choices: tuple[str, ...] = ()
    length: int = 0
    """Most characters of a text; 0 for the limit of all texts."""
    fixed: bool = False
    """Read once, at start or by configure: it may not change until cleanup."""

    @property
    def allowed(self) -> str:
        """Return which values are allowed."""
        if self.choices:
            return ' or '.join(self.choices)
        name = _TYPE_NAMES[type(self.default)]
        if self.length:
            return f'{name} of at most {self.length} characters'
        return f'{name} from {self.range[0]} to {self.range[1]}' if self.range else name

    def check(self, value: Any) -> Any:
        """
        Return the value in the declared type; an integer is valid for a double.

        :raises InvalidSettingError: when the value is of another type or out of range.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list) and value is not None:
            value = list(value)
        if type(value) is not type(self.default):
            raise InvalidSettingError(self.name, value, self.allowed, self._remedy())
        if self.range and not self.range[0] <= value <= self.range[1]:
            raise InvalidSettingError(self.name, value, self.allowed)
        if self.choices and value not in self.choices:
            raise InvalidSettingError(self.name, value, self.allowed)
        self._check_texts(value)
        return value

    def _check_texts(self, value: Any) -> None:
        """
        Limit what is copied into messages and logs, and the time to compare it.

        :raises InvalidSettingError: for a list or a text that is too long, or not printable.
        """
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if len(texts) > _MAX_TEXTS:
            raise InvalidSettingError(
                self.name, value, f'a list of at most {_MAX_TEXTS} texts; it has {len(texts)}')
        most = self.length or _MAX_LENGTH
        for text in texts:
            if not isinstance(text, str):
                raise InvalidSettingError(self.name, value, self.allowed, self._remedy())
            if len(text) > most:
                raise InvalidSettingError(
                    self.name, text, f'text of at most {most} characters; it has {len(text)}')
            if not is_printable(text):
                raise InvalidSettingError(
                    self.name, text, 'printable text',
                    'leave control, format and surrogate characters out')

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor that `ros2 param describe` shows."""
        when = ' Read once, at start or by configure.' if self.fixed else ''
        descriptor = ParameterDescriptor(
            name=self.name, description=self.description + when,
            additional_constraints=self.allowed)
        if self.range and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.range[0], to_value=self.range[1])]
        elif self.range:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.range[0]), to_value=int(self.range[1]))]
        return descriptor

    def _remedy(self) -> str:
        return f'write it as in `{self.name}: {_yaml(self.default)}`'


_MAX_TEXTS, _MAX_LENGTH = 1000, 4096
"""Entries of a list, and characters of a text: as many as of a path."""
_TYPE_NAMES = {
    bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
    list: 'a list of texts',
}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


_TIMEOUT = (0.05, 60.0)
_PART = (0.01, 1.0)
_SECONDS = (0.0, 60.0)
_EVENTS = EventSettings()


def _input(name: str, what: str, timeout: float, silence: str) -> tuple[Declaration, ...]:
    """Return the parameters that every input has."""
    return (
        Declaration(f'{name}.enabled', True,
                    f'Use {what}; false unsubscribes and discards what was received.'),
        Declaration(f'{name}.timeout', timeout, f'Seconds without {silence}.', _TIMEOUT),
        Declaration(f'{name}.min_coverage', 0.5, 'Fraction of the window that must be covered '
                    'before this input counts as available.', _PART),
        Declaration(f'{name}.qos', 'auto', 'sensor_data receives from every publisher; reliable '
                    'has lost messages sent again, from reliable publishers only; auto takes '
                    'reliable when every publisher offers it.',
                    choices=('auto', 'sensor_data', 'reliable')),
    )


DECLARATIONS = (
    Declaration('model', 'synthetic_kitchen',
                'Model directory, or the name of one that comes with karmma_ros. A new one is '
                'loaded while the old one is in use, which stays if loading fails.'),
    Declaration('backend', AUTO, 'Inference backend: auto takes the fastest that is installed, '
                'exported and agrees with eager. A change reloads the model.',
                choices=WANTED),
    Declaration('device', 'auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.',
                fixed=True),
    Declaration('threads', 0, "CPU threads of the network; 0 leaves torch's choice.", (0, 256),
                fixed=True),
    Declaration('autostart', False, 'Configure and activate at start, without a launch file.',
                fixed=True),
    Declaration('rate', 5.0, 'Most results a second, on the node clock. Each waits for the next '
                'frame of the clip, for one period at most.', (0.1, 60.0)),
    Declaration('min_modalities', 1, 'Publish nothing while fewer inputs than this are available.',
                (1, 4)),
    Declaration('top_k', 5, 'Classes of each head, and actions, in a result.', (1, 100)),
    Declaration('score_threshold', 0.0,
                'above_threshold is true when the best verb and noun both reach this; of a model '
                'with one head, its best class.',
                (0.0, 1.0)),
    Declaration('subject_id', '', 'Copied into results and events: whose actions they are.',
                length=256),
    *_input('rgb', 'the camera for RGB', 0.5, 'an image after which the camera is stale'),
    Declaration('rgb.transport', 'raw', 'raw subscribes to sensor_msgs/Image on image; compressed '
                'to sensor_msgs/CompressedImage on image/compressed.',
                choices=('raw', 'compressed')),
    Declaration('rgb.bits', 16, 'Significant bits of images with 16 bit channels: 10 or 12 for a '
                'camera whose values end at 1023 or 4095; 16 takes the whole range.', (8, 16)),
    *_input('flow', 'optical flow', 0.5, 'a message on the flow topic after which it is stale; '
            "computed flow shares the camera's"),
    Declaration('flow.source', 'computed', 'computed takes it from the camera; topic subscribes '
                'to sensor_msgs/Image of encoding 32FC2 on flow.', choices=('computed', 'topic')),
    *_input('audio', 'the microphone', 0.5, 'audio after which it is stale'),
    Declaration('audio.type', 'audio_common_msgs/msg/AudioDataStamped',
                'Message type of the audio topic.', choices=(
                    'audio_common_msgs/msg/AudioDataStamped', 'audio_common_msgs/msg/AudioData',
                    'audio_common_msgs/msg/AudioStamped')),
    Declaration('audio.sample_rate', 16_000, 'Hz; as the audio driver publishes.',
                (1_000, 384_000)),
    Declaration('audio.channels', 1, 'Interleaved channels; they are mixed to one.', (1, 64)),
    Declaration('audio.sample_format', 'S16LE',
                "GStreamer's name of the sample format: S16LE, S32LE, F32LE, U8 …"),
    *_input('detections', 'the detected boxes', 1.0,
            'a detection message after which they are stale; an empty message counts'),
    Declaration('detections.type', 'vision_msgs/msg/Detection2DArray',
                'Message type of the detections topic.', choices=(
                    'vision_msgs/msg/Detection2DArray', 'yolo_msgs/msg/DetectionArray')),
    Declaration('detections.image_width', 0,
                "Width of the image that the boxes lie in, in the detector's pixels; 0 takes the "
                "camera's.", (0, 100_000)),
    Declaration('detections.image_height', 0,
                "Height of the image that the boxes lie in, in the detector's pixels; 0 takes the "
                "camera's.", (0, 100_000)),
    Declaration('detections.offset_x', 0.0, "Added to the boxes' x: how far the left edge of a "
                "crop that the detector works on lies from that of the image, in the detector's "
                'pixels, or as a fraction of the image with detections.normalised.',
                (-100_000.0, 100_000.0)),
    Declaration('detections.offset_y', 0.0, "Added to the boxes' y, from the top edge likewise.",
                (-100_000.0, 100_000.0)),
    Declaration('detections.normalised', False, 'Boxes are fractions of the image, 0 to 1, '
                'instead of pixels; its width and height do not matter then.'),
    Declaration('detections.hand_classes', ['hand'],
                'class_id of hands, names or numbers as text, besides those with the word '
                'hand; every other class is an object. Of yolo_msgs it is the class_name.'),
    Declaration('detections.ignored_classes', [''],
                'class_id of boxes to leave out, as the detector writes them.'),
    Declaration('detections.min_score', 0.0, 'Boxes below this score are left out.', (0.0, 1.0)),
    Declaration('events.smoothing', _EVENTS.smoothing,
                'Time constant of the smoothing of probabilities, seconds; 0 smooths nothing.',
                _SECONDS),
    Declaration('events.start', _EVENTS.start,
                'An action starts when its smoothed score reaches this.', (0.001, 1.0)),
    Declaration('events.end', _EVENTS.end, 'An action ends when its smoothed score falls below '
                'this; it lies below events.start.', (0.0005, 1.0)),
    Declaration('events.min_duration', _EVENTS.min_duration,
                'What has not been seen for this long is not announced, seconds.', _SECONDS),
    Declaration('events.max_gap', _EVENTS.max_gap,
                'Without a result for longer than this, what runs has ended, seconds.',
                (0.05, 60.0)),
    Declaration('events.background', '',
                'Class, verb or noun, that stands for no action; empty where the model has none.'),
)

OVERLAY_DECLARATIONS = (
    Declaration('recogniser', 'karmma', 'Name of the node whose predictions are drawn; its topics '
                'are NAME/modality_availability and so on.', fixed=True),
    Declaration('transport', 'auto', 'raw subscribes to sensor_msgs/Image on image; compressed to '
                'sensor_msgs/CompressedImage on image/compressed; auto takes raw where that is '
                'published.', choices=('auto', 'raw', 'compressed')),
    Declaration('slop', 0.2, 'Seconds by which the stamps of a result and its image may differ.',
                (0.001, 10.0)),
    Declaration('queue_size', 15, 'Images kept for results to come: as many as arrive in the '
                'time that a result takes.', (1, 1000)),
    Declaration('patience', 1.0, 'Seconds without a result for an image after which images are '
                'drawn without; more than the time between two results.', (0.1, 60.0)),
    Declaration('min_width', 640, 'Narrower images are enlarged to this width, so that the text '
                'can be read; 0 leaves all as they are.', (0, 8192)),
    Declaration('reason_length', 80, 'Most characters of the reason why a sensor is out; 0 '
                'leaves it out.', (0, 500)),
    Declaration('font', '', 'TrueType file, as a path or as the name of an installed font; empty '
                "takes DejaVu Sans, or Pillow's own font where that is not."),
    Declaration('jpeg_quality', 80, 'Of ~/image/compressed.', (1, 100)),
)
"""Of the overlay."""
