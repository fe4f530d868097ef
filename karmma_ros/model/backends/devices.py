"""Which device a network runs on: one set of names for every command and for the node."""

from __future__ import annotations

from karmma_ros.errors import InvalidSettingError
import torch

AUTO, CPU, CUDA = 'auto', 'cpu', 'cuda'
HELP = 'auto, cpu, cuda or cuda:N; auto takes the first CUDA device if there is one [auto]'
"""Help text of an option `--device`."""


def choose_device(text: str, setting: str = 'device') -> str:
    """
    Resolve `auto` and check the name against the devices of this machine.

    :param setting: name of the parameter or option, for the error.
    :returns: `cpu` or `cuda:N`.
    :raises InvalidSettingError: for a device that PyTorch does not find here.
    """
    count = torch.cuda.device_count()
    if text == AUTO:
        return f'{CUDA}:0' if count else CPU
    present = [CPU, *(f'{CUDA}:{i}' for i in range(count))]
    name = f'{CUDA}:0' if text == CUDA else text
    if name not in present:
        raise InvalidSettingError(
            setting, text, ', '.join([AUTO, *present, *([CUDA] if count else [])]), _found(count))
    return name


def _found(count: int) -> str:
    """Return what PyTorch finds on this machine, in words."""
    if count:
        names = ', '.join(f'cuda:{i} is {torch.cuda.get_device_name(i)}' for i in range(count))
        return f'PyTorch finds {count} CUDA device{"s" * (count > 1)} here: {names}'
    reason = ('this build of PyTorch has no CUDA support' if torch.version.cuda is None
              else 'the NVIDIA driver reports none')
    return f'PyTorch finds no CUDA device here: {reason}'
