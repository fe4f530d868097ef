"""Egocentric action recognition that survives missing sensors, for ROS 2."""

__version__ = '0.1.0'
