"""
What runs a network: PyTorch eager or compiled, ONNX Runtime, OpenVINO, behind one interface.

`choose` finds the one for a model and a device; `exporting` writes what the runtimes read.
Neither runtime is imported before it is used.
"""

from karmma_ros.model.backends.interface import Backend, Tokens
from karmma_ros.model.backends.selection import AUTO, Choice, choose, WANTED

__all__ = ['AUTO', 'Backend', 'Choice', 'Tokens', 'WANTED', 'choose']
