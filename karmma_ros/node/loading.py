"""Find a model by name or path and make it ready to answer."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
import karmma_ros
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.stream.recogniser import Recogniser
import torch


def find_model(text: str) -> Path:
    """
    Give the directory that `text` means: a path, or a name under a `models` folder.

    :raises InvalidSettingError: when there is neither; it lists the names there are.
    """
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path
    folders = _model_folders()
    for folder in folders:
        if text and (folder / text).is_dir():
            return folder / text
    names = sorted({p.name for folder in folders for p in folder.iterdir() if p.is_dir()})
    raise InvalidSettingError(
        'model', text, f'the path of a model directory, or one of: {", ".join(names) or "none"}',
        'check the path, or train a model with `karmma train`')


def _model_folders() -> list[Path]:
    """Give the models of the source tree, then those installed with the package."""
    folders = [Path(karmma_ros.__file__).parents[1] / 'models']
    try:
        folders.append(Path(get_package_share_directory('karmma_ros'), 'models'))
    except PackageNotFoundError:
        pass
    return [folder for folder in folders if folder.is_dir()]


def choose_device(text: str) -> str:
    """
    Resolve `auto` and hold the rest against this machine.

    :raises InvalidSettingError: for a device that torch does not have here.
    """
    count = torch.cuda.device_count()
    if text == 'auto':
        return 'cuda:0' if count else 'cpu'
    allowed = ['auto', 'cpu', *(['cuda'] if count else []), *(f'cuda:{i}' for i in range(count))]
    if text not in allowed:
        raise InvalidSettingError(
            'device', text, ' or '.join(allowed), f'torch sees {count} CUDA devices here')
    return 'cuda:0' if text == 'cuda' else text


def load_recogniser(model: str, device: str, threads: int) -> tuple[Bundle, Recogniser]:
    """
    Load a model and let it answer once, so that the first real answer comes at full speed.

    :raises InvalidSettingError: for a model or device that does not exist.
    :raises BundleError: for a damaged model directory.
    """
    if threads:
        torch.set_num_threads(threads)
    bundle = load_bundle(find_model(model), device)
    recogniser = Recogniser(bundle.network, bundle.vocabulary, bundle.spec, device)
    recogniser.warm_up()
    return bundle, recogniser
