"""
Timed samples to window, availability and prediction: the live brain, without ROS.

Nothing in here reads a clock, starts a thread or takes a lock: callers pass the time in
integer nanoseconds and guard a `SensorStream` themselves.
"""
