"""
Boxes of hands and objects, as detectors publish them.

Shape legend: t frames, n boxes of a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import cos, isfinite, sin
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TYPE_CHECKING

from karmma_ros.clip import BOX_PAD, ClipSpec, DetectionSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.box_check import BoxCheck, BoxFrame
from karmma_ros.modalities.box_content import BoxContent
from karmma_ros.modalities.box_corruptions import BOX_CORRUPTIONS
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.detection_buffer import DetectionBuffer
from karmma_ros.modalities.message_types import DETECTIONS, YOLO
from karmma_ros.modalities.modality_type import InputDecoder, InputMessage, ModalityType, Values
from karmma_ros.preprocess.box_array import (
    CategoryMap,
    detection_input,
    normalise_boxes,
)
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.media.sources import BoxSource, SharedFrames, SourceOptions

_MAX_DETECTIONS = 5000
"""More would keep the callbacks of all other inputs waiting."""


class DetectionDecoder:
    """
    Decode vision_msgs/Detection2DArray, which does not state the size of its image.

    The layouts from before vision_msgs 4, as old bags have them, are decoded as well, and
    yolo_msgs/DetectionArray, whose class ids are its class names.
    """

    def __init__(
        self, hand_classes: Iterable[str] = (), width: int = 0, height: int = 0,
        ignored_classes: Iterable[str] = (), min_score: float = 0.0, normalised: bool = False,
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """
        Take the class ids of hands and the image's size, 0 for the camera's.

        :param ignored_classes: class ids of boxes that are left out; '' names none.
        :param min_score: boxes below it are left out.
        :param normalised: boxes are fractions of the image, whose size does not matter then.
        :param offset: added to x and y of the boxes, in their unit.
        """
        self._normalised, self._offset = normalised, offset
        self._size = width, height
        self._categories = CategoryMap({each: 'hand' for each in hand_classes if each})
        self._ignored = frozenset(each for each in ignored_classes if each)
        self._min_score = min_score
        self.camera_size: tuple[int, int] = (0, 0)
        """Width and height of the newest camera image; (0, 0) before the first one."""
        self.corners: NDArray[np.float64] = np.zeros((0, 4))
        """The boxes of the last message as received, x1, y1, x2, y2."""

    @property
    def frame(self) -> BoxFrame:
        """Return how boxes are read now; a size of 0 is not known."""
        size = tuple(given or seen for given, seen in zip(self._size, self.camera_size))
        return BoxFrame((1, 1) if self._normalised else (size[0], size[1]), self._normalised,
                        self._offset)

    def __call__(self, message: Any) -> NDArray[np.float32]:
        """
        Return float32 `[n, 5]`: x1, y1, x2, y2 in 0..1 and the category, best score first.

        A box that lies outside of the image is left out.

        :raises InvalidSampleError: for impossible or too many boxes, or an unknown image size.
        """
        if len(message.detections) > _MAX_DETECTIONS:
            raise InvalidSampleError(
                f'boxes: got {len(message.detections)}; expected {_MAX_DETECTIONS} or fewer: '
                "raise the detector's threshold")
        named = [(*_best(each), each.bbox) for each in message.detections]
        scored = sorted((each for each in named if self._wanted(*each[:2])),
                        key=lambda each: each[0], reverse=True)
        self.corners = np.array([_corners(box) for _, _, box in scored], np.float64).reshape(-1, 4)
        if not scored:
            return np.zeros((0, 5), np.float32)
        frame = self.frame
        if not all(frame.size):
            raise InvalidSampleError(
                'the size of the image that the boxes lie in is not known before the first image: '
                'set detections.image_width and detections.image_height')
        corners = self.corners + frame.offset * 2
        categories = [self._categories(class_id) for _, class_id, _ in scored]
        boxes = np.column_stack([normalise_boxes(corners, *frame.size), categories])
        outside = ((corners[:, 2:] <= 0) | (corners[:, :2] >= frame.size)).any(axis=1)
        return boxes[~outside].astype(np.float32)

    def _wanted(self, score: float, class_id: str) -> bool:
        return class_id not in self._ignored and score >= self._min_score


def _corners(box: Any) -> tuple[float, float, float, float]:
    """
    Return x1, y1, x2, y2 of what an upright box must hold to hold this one.

    A negative size ends up as x2 < x1, which is refused later.
    """
    center = getattr(box.center, 'position', box.center)
    size_x, size_y = (box.size.x, box.size.y) if hasattr(box, 'size') else (box.size_x, box.size_y)
    half_x, half_y = size_x / 2, size_y / 2
    theta = getattr(box.center, 'theta', 0.0)
    if theta and isfinite(theta) and half_x >= 0 and half_y >= 0:
        across, down = abs(cos(theta)), abs(sin(theta))
        half_x, half_y = half_x * across + half_y * down, half_x * down + half_y * across
    return center.x - half_x, center.y - half_y, center.x + half_x, center.y + half_y


def _best(detection: Any) -> tuple[float, str]:
    """Return score and class id of the likeliest hypothesis; a score that is no number is 0."""
    if hasattr(detection, 'class_name'):  # yolo_msgs: one hypothesis, with a name
        score = float(detection.score) if isfinite(detection.score) else 0.0
        return score, str(detection.class_name or detection.class_id)
    hypotheses = [getattr(result, 'hypothesis', result) for result in detection.results]
    scored = [(float(h.score) if isfinite(h.score) else 0.0, h) for h in hypotheses]
    if not scored:
        return 0.0, ''
    score, best = max(scored, key=lambda each: each[0])
    return score, str(best.class_id if hasattr(best, 'class_id') else best.id)


class DetectorDecoder(InputDecoder):
    """Decode the messages of a detector, and check the unit of its boxes."""

    def read_parameters(self) -> None:
        """Read how boxes are to be understood."""
        self._decoder = DetectionDecoder(
            width=self.parameter('image_width'), height=self.parameter('image_height'),
            hand_classes=self.parameter('hand_classes'),
            ignored_classes=self.parameter('ignored_classes'),
            min_score=self.parameter('min_score'), normalised=self.parameter('normalised'),
            offset=(self.parameter('offset_x'), self.parameter('offset_y')))

    def decode(self, received: InputMessage, now_ns: int) -> NDArray[np.float32]:
        """Return float32 `[n, 5]`, as `DetectionDecoder` does."""
        camera = self.modality.sibling('rgb')
        self._decoder.camera_size = self.image_sizes.get(camera, (0, 0))
        boxes = self._decoder(received.read())
        self._check.update(self._decoder.corners, self._decoder.frame, now_ns)
        self.set_finding('unit', self._check.unit)
        self.set_finding('size', self._check.size)
        return boxes

    @property
    def corners(self) -> NDArray[np.float64]:
        """Return the boxes of the last message as received, x1, y1, x2, y2 `[n, 4]`."""
        return self._decoder.corners

    def reset(self) -> None:
        """Start the check of the unit anew."""
        super().reset()
        self._check = BoxCheck()


_BOXES = f'have the detector publish {DETECTIONS} or {YOLO}'
_IN_SPACE = f'its boxes are in metres: publish those of the image as {DETECTIONS}'


class Detections(ModalityType):
    """Boxes of hands and objects (D)."""

    name, letter, sensor = 'detections', 'D', 'the boxes'
    what = 'the detected boxes'
    silence = 'a detection message after which they are stale; an empty message counts'
    spec_class, spec_field = DetectionSpec, 'detections'
    read_with = (
        'normalised', 'offset_x', 'offset_y', 'image_width', 'image_height')
    message_types = (DETECTIONS, YOLO)
    timeout = 1.0
    decoder, content_check = DetectorDecoder, BoxContent
    corruptions = BOX_CORRUPTIONS
    unsupported = {
        'vision_msgs/msg/Detection3DArray': _IN_SPACE,
        'vision_msgs/msg/Detection3D': _IN_SPACE,
        'vision_msgs/msg/BoundingBox3DArray': _IN_SPACE,
        'vision_msgs/msg/Detection2D': f'publish all boxes of an image in one {DETECTIONS}',
        'vision_msgs/msg/BoundingBox2DArray': f'its boxes have no class: {_BOXES}',
        'yolov8_msgs/msg/DetectionArray':
            f'update yolo_ros to version 4 or later, which publishes {YOLO}',
        'ultralytics_ros/msg/YoloResult': f'publish its field detections, a {DETECTIONS}',
        'darknet_ros_msgs/msg/BoundingBoxes': _BOXES,
        'depthai_ros_msgs/msg/SpatialDetectionArray': _BOXES,
        'zed_msgs/msg/ObjectsStamped': _BOXES,
        'zed_interfaces/msg/ObjectsStamped': _BOXES,
        'ai_msgs/msg/PerceptionTargets': _BOXES,
    }
    unsupported_names = '(?i:Detection|BoundingBox|Detected)', _BOXES

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[t, n, 5]`."""
        return clip.num_frames, self.spec(clip).max_boxes, 5

    def clip_fields(self, clip: ClipSpec) -> dict[str, Any]:
        """Return the fields of its own, and the number of frames."""
        return {**super().clip_fields(clip), 'num_frames': clip.num_frames}

    def noise(self, clip: ClipSpec, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return random boxes: corners in order within 0..1, and a category."""
        x = super().noise(clip, rng)
        corners = 1 / (1 + np.exp(-x[..., :4]))
        low = np.minimum(corners[..., :2], corners[..., 2:])
        high = np.maximum(corners[..., :2], corners[..., 2:])
        category = rng.integers(0, 3, (*x.shape[:-1], 1)).astype(np.float32)
        boxes = np.concatenate([low, high, category], axis=-1)
        return np.where(category == BOX_PAD, 0, boxes).astype(np.float32)

    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from the boxes of t frames, float32 `[n, 5]` each."""
        if len(arrays) != clip.num_frames:
            raise InvalidSampleError(
                f'boxes: got {len(arrays)} frames; expected {clip.num_frames}')
        return detection_input(arrays, self.spec(clip))

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> list[NDArray[np.float32]]:
        """Return the boxes of each frame, with padding rows."""
        return list(x)

    def truncate(
        self, arrays: Sequence[NDArray[np.float32]], fraction: float, clip: ClipSpec,
    ) -> list[NDArray[np.float32]]:
        """Return no boxes after the first fraction."""
        first = round(len(arrays) * fraction)
        return [*arrays[:first], *[np.zeros((0, 5), np.float32)] * (len(arrays) - first)]

    def stand_ins(self, sample: NDArray[np.float32], clip: ClipSpec) -> tuple[Any, Any]:
        """Return the corners."""
        kept = sample[sample[:, 4] != BOX_PAD]
        return None, SimpleNamespace(corners=kept[:, :4].astype(np.float64))

    def window_of_one(self, sample: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the boxes of one frame."""
        return [sample]

    def buffer(self, clip: ClipSpec) -> DetectionBuffer:
        """Return an empty buffer."""
        return DetectionBuffer(clip, self.spec(clip))

    def read(self, message: Any, type_name: str, clip: ClipSpec, values: Values) -> Any:
        """Return the message: what its boxes mean depends on the camera."""
        return message

    def open_source(self, path: Path, options: SourceOptions) -> BoxSource:
        """Open a CSV file of boxes."""
        from karmma_ros.media.boxes import BoxFile
        return BoxFile(path, 1 / options.detections_rate if options.detections_rate else 0.0)

    def read_window(
        self, source: BoxSource, start_s: float, clip: ClipSpec, frames: SharedFrames,
    ) -> list[NDArray[np.float32]]:
        """Return the boxes of each frame, `[n, 5]`."""
        from karmma_ros.media.sources import frame_times
        return source.boxes(frame_times(start_s, clip))

    def parameters(self) -> tuple[Declaration, ...]:
        """Return how boxes are to be understood."""
        name = self.modality
        return (
            Declaration(f'{name}.type', DETECTIONS, f'Message type of the {name} topic.',
                        choices=(DETECTIONS, YOLO)),
            Declaration(f'{name}.image_width', 0, "Width of the image that the boxes lie in, in "
                        "the detector's pixels; 0 takes the camera's.", (0, 100_000)),
            Declaration(f'{name}.image_height', 0, "Height of the image that the boxes lie in, "
                        "in the detector's pixels; 0 takes the camera's.", (0, 100_000)),
            Declaration(f'{name}.offset_x', 0.0, "Added to the boxes' x: how far the left edge of "
                        'a crop that the detector works on lies from that of the image, in the '
                        "detector's pixels, or as a fraction of the image with "
                        f'{name}.normalised.', (-100_000.0, 100_000.0)),
            Declaration(f'{name}.offset_y', 0.0, "Added to the boxes' y, from the top edge "
                        'likewise.', (-100_000.0, 100_000.0)),
            Declaration(f'{name}.normalised', False, 'Boxes are fractions of the image, 0 to 1, '
                        'instead of pixels; its width and height do not matter then.'),
            Declaration(f'{name}.hand_classes', ['hand'], 'class_id of hands, names or numbers '
                        'as text, besides those with the word hand; every other class is an '
                        'object. Of yolo_msgs it is the class_name.'),
            Declaration(f'{name}.ignored_classes', [''], 'class_id of boxes to leave out, as the '
                        'detector writes them.'),
            Declaration(f'{name}.min_score', 0.0, 'Boxes below this score are left out.',
                        (0.0, 1.0)),
        )
