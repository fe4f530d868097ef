"""Metrics, modality subsets, tables and bags."""
