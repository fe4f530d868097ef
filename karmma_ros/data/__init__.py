"""Datasets on disk → clips."""
