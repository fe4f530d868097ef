"""
Backends that run a network: PyTorch eager or compiled, ONNX Runtime, OpenVINO.

`choose` selects one for a model and a device; `export` writes the files that the runtimes read.
No runtime is imported before it is used.
"""

from karmma_ros.model.backends.interface import Backend, Tokens
from karmma_ros.model.backends.selection import AUTO, BackendChoice, choose, WANTED

__all__ = ['AUTO', 'Backend', 'BackendChoice', 'Tokens', 'WANTED', 'choose']
