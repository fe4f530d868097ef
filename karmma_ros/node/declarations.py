"""The node's parameters: the one place where defaults, ranges and meanings live."""

from __future__ import annotations

from karmma_ros.model.backends import AUTO, WANTED
from karmma_ros.node.declaration import Declaration
from karmma_ros.stream.events import EventSettings

_TIMEOUT = (0.05, 60.0)
_PART = (0.01, 1.0)
_SECONDS = (0.0, 60.0)
_EVENTS = EventSettings()


def _input(name: str, what: str, timeout: float, silence: str) -> tuple[Declaration, ...]:
    """Declare what every sensor has."""
    return (
        Declaration(f'{name}.enabled', True,
                    f'Use {what}; false unsubscribes and forgets what was received.'),
        Declaration(f'{name}.timeout', timeout, f'Seconds without {silence}.', _TIMEOUT),
        Declaration(f'{name}.min_coverage', 0.5, 'Part of the window that must be covered before '
                    'this input counts as available.', _PART),
        Declaration(f'{name}.qos', 'auto', 'sensor_data receives from every publisher; reliable '
                    'has lost messages sent again, from reliable publishers only; auto takes '
                    'reliable when every publisher offers it.',
                    choices=('auto', 'sensor_data', 'reliable')),
    )


DECLARATIONS = (
    Declaration('model', 'synthetic_kitchen',
                'Model directory, or the name of one that comes with karmma_ros. A new one is '
                'loaded beside the old, which goes on until it is ready, and stays if it fails.'),
    Declaration('backend', AUTO, 'What runs the model: auto takes the fastest that is installed, '
                'exported and agrees with eager. A change loads the model anew, beside the old.',
                choices=WANTED),
    Declaration('device', 'auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.',
                fixed=True),
    Declaration('threads', 0, "CPU threads of the network; 0 leaves torch's choice.", (0, 256),
                fixed=True),
    Declaration('autostart', False, 'Configure and activate by itself, without a launch file; '
                'looked at once, at the start.', fixed=True),
    Declaration('rate', 5.0, 'Results a second, at most; on the node clock. Each waits for the '
                'next picture that the clip shows, for one period at most.', (0.1, 60.0)),
    Declaration('min_modalities', 1, 'Publish nothing while fewer inputs than this are available.',
                (1, 4)),
    Declaration('top_k', 5, 'Classes of each head, and actions, in a result.', (1, 100)),
    Declaration('score_threshold', 0.0,
                'above_threshold is true when the best verb and noun both reach this; of a model '
                'with one head, its best class.',
                (0.0, 1.0)),
    Declaration('subject_id', '', 'Copied into results and events: whose actions they are.',
                length=256),
    *_input('rgb', 'the camera for RGB', 0.5, 'a picture after which the camera is stale'),
    Declaration('rgb.transport', 'raw', 'raw subscribes to sensor_msgs/Image on image; compressed '
                'to sensor_msgs/CompressedImage on image/compressed.',
                choices=('raw', 'compressed')),
    Declaration('rgb.bits', 16, 'Significant bits of images with 16 bit channels: 10 or 12 for a '
                'camera whose values end at 1023 or 4095; 16 takes the whole range.', (8, 16)),
    *_input('flow', 'optical flow', 0.5, 'a message on the flow topic after which it is stale; '
            "computed flow shares the camera's"),
    Declaration('flow.source', 'computed', 'computed takes it from the camera; topic subscribes '
                'to sensor_msgs/Image of encoding 32FC2 on flow.', choices=('computed', 'topic')),
    *_input('audio', 'the microphone', 0.5, 'sound after which it is stale'),
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
                'class_id of hands, names or numbers as text, besides those that hold the word '
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
    Declaration('recogniser', 'karmma', 'Name of the node whose answers are drawn: its private '
                'topics are taken as NAME/modality_availability and so on.', fixed=True),
    Declaration('transport', 'auto', 'raw subscribes to sensor_msgs/Image on image; compressed to '
                'sensor_msgs/CompressedImage on image/compressed; auto takes raw where that is '
                'published.', choices=('auto', 'raw', 'compressed')),
    Declaration('slop', 0.2, 'Seconds by which the stamps of a result and its picture may differ.',
                (0.001, 10.0)),
    Declaration('queue_size', 15, 'Pictures kept for results to come: as many as arrive in the '
                'time that a result takes.', (1, 1000)),
    Declaration('patience', 1.0, 'Seconds without a result for a picture after which pictures are '
                'drawn without; more than the time between two results.', (0.1, 60.0)),
    Declaration('min_width', 640, 'Narrower pictures are enlarged to this width, so that the text '
                'can be read; 0 leaves all as they are.', (0, 8192)),
    Declaration('reason_length', 80, 'Most characters of the words on a sensor that is out; 0 '
                'leaves the words out.', (0, 500)),
    Declaration('font', '', 'TrueType file, as a path or as the name of an installed font; empty '
                'takes DejaVu Sans, or plain strokes where that is not.'),
    Declaration('jpeg_quality', 80, 'Of ~/image/compressed.', (1, 100)),
)
"""Of the overlay."""
