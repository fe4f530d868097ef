"""The overlay's parameters."""

from __future__ import annotations

from karmma_ros.node.declaration import Declaration

DECLARATIONS = (
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
