"""The parameters of the nodes; those of an input are declared by its modality."""

from __future__ import annotations

from collections.abc import Iterable

from karmma_ros.modalities import modality_type
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.backends import AUTO, WANTED
from karmma_ros.node.executor import EXECUTORS
from karmma_ros.stream.events import EventSettings
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


def descriptor_of(declaration: Declaration) -> ParameterDescriptor:
    """Return the descriptor that `ros2 param describe` shows."""
    descriptor = ParameterDescriptor(
        name=declaration.name, description=declaration.text, read_only=declaration.read_only,
        additional_constraints=declaration.allowed)
    if declaration.range and isinstance(declaration.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=declaration.range[0], to_value=declaration.range[1])]
    elif declaration.range:
        descriptor.integer_range = [
            IntegerRange(from_value=int(declaration.range[0]), to_value=int(declaration.range[1]))]
    return descriptor


_SECONDS = (0.0, 60.0)
_EVENTS = EventSettings()


def input_declarations(modalities: Iterable[Modality]) -> tuple[Declaration, ...]:
    """Return the parameters of the inputs of some modalities."""
    return tuple(each for modality in modalities
                 for each in modality_type(modality).declarations())


COMMON = (
    Declaration('model', 'synthetic_kitchen',
                'Model directory, the name of one that comes with karmma_ros, or with allow_hub '
                'hf://ORGANISATION/NAME@REVISION. A new one is loaded while the old one is in '
                'use, which stays if loading fails.'),
    Declaration('allow_hub', False, 'Download models of the Hugging Face Hub into its cache.',
                read_only=True),
    Declaration('backend', AUTO, 'Inference backend: auto takes the fastest that is installed, '
                'exported and agrees with eager. A change reloads the model.',
                choices=WANTED),
    Declaration('device', 'auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.',
                fixed=True),
    Declaration('threads', 0, "CPU threads of the network; 0 leaves torch's choice.", (0, 256),
                fixed=True),
    Declaration('autostart', False, 'Configure and activate at start, without a launch file.',
                fixed=True),
    Declaration('executor', EXECUTORS[0], 'Of the process: events needs less processor time; auto '
                'takes it where rclpy has it and it delivers in a test at start.',
                choices=EXECUTORS, fixed=True),
    Declaration('rate', 5.0, 'Most results a second, on the node clock. Each waits for the next '
                'frame of the clip, for one period at most.', (0.1, 60.0)),
    Declaration('min_modalities', 1, 'Publish nothing while fewer inputs than this are available.',
                (1, 32)),
    Declaration('top_k', 5, 'Classes of each head, and actions, in a result.', (1, 100)),
    Declaration('score_threshold', 0.0,
                'above_threshold is true when the best verb and noun both reach this; of a model '
                'with one head, its best class.',
                (0.0, 1.0)),
    Declaration('leave_one_out', False, 'Report also what each result would be without each of '
                'its inputs. The encoders do not run again.'),
    Declaration('subject_id', '', 'Copied into results and events: whose actions they are.',
                length=256),
)

EVENTS = (
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
                'Without a result for longer than this, or 2 / rate if that is more, what runs '
                'has ended, seconds.',
                (0.05, 60.0)),
    Declaration('events.background', '',
                'Class, verb or noun, that stands for no action; empty: that of the model, if it '
                'has one.'),
)

DECLARATIONS = (*COMMON, *input_declarations(PAPER_MODALITIES), *EVENTS)
"""Of a node with the paper's inputs."""

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
