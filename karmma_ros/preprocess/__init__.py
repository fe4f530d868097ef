"""
Raw sensor data to model input: video, flow, audio, detections.

Training and the robot call these same functions. They are pure, need numpy and
OpenCV only (soxr to resample audio), and raise `InvalidSampleError` for invalid input.
"""
