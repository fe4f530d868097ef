"""
Memory at inference, measured: one process for each subset of the modalities.

Run as a program, this module builds a preset with only the encoders of a subset, recognises one
clip and prints by how many bytes the process grew at its largest. What Python and the libraries
take before the network is built is not counted; the memory is the CPU's, in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
import resource
import subprocess
import sys

from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.cost import setting
from karmma_ros.modality import Modality, parse_subset, subset_name
from karmma_ros.model.builder import build
from karmma_ros.model.presets import only, preset
import torch

_KILO = 1024


def resident_bytes(name: str, modalities: Sequence[Modality]) -> int:
    """
    Measure by how much a new process grows while it builds a preset and recognises one clip.

    :raises KarmmaError: when the process fails, with its last line.
    """
    done = subprocess.run(
        [sys.executable, '-m', __name__, name, subset_name(modalities)],
        capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f'exit status {done.returncode}').splitlines()[-1]
        raise KarmmaError(f'measuring {name} with {subset_name(modalities)} failed: {last}')
    return int(done.stdout)


def _growth(name: str, modalities: Sequence[Modality]) -> int:
    spec, vocabulary = setting(name)
    config = replace(only(preset(name), modalities), missing='omit')
    with torch.device('meta'):  # what it imports is no part of the network
        build(config, spec, vocabulary)
    before = _resident()
    network = build(config, spec, vocabulary).eval()
    inputs = {m: torch.zeros(1, *spec.input_shape(m)) for m in network.modalities}
    with torch.inference_mode():
        network(inputs, torch.ones(1, len(inputs), dtype=torch.bool))
    return _peak() - before


def _resident() -> int:
    return _status('VmRSS')


def _peak() -> int:
    return _status('VmHWM')


def _status(field: str) -> int:
    """
    Give a field of the process' own status, bytes.

    What the system calls maxrss counts the process that started this one, too; it stands in
    only where there is no such file.
    """
    status = Path('/proc/self/status')
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f'{field}:'):
                return int(line.split()[1]) * _KILO
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == 'darwin' else largest * _KILO


if __name__ == '__main__':
    print(_growth(sys.argv[1], parse_subset(sys.argv[2])))
