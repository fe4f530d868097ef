"""Recorded bags through the very code that the node runs: replay, scores, report."""
