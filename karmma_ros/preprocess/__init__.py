"""
Raw sensor data to model input: video, flow, audio, detections.

Training and the robot call these same functions. They are pure, need numpy and
OpenCV only (soxr where sound comes at another rate), and raise `InvalidSampleError`
for whatever they cannot use.
"""
