"""What every import does: the file is found, checked and read, and fills the network exactly."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
import fractions
import hashlib
import json
from pathlib import Path
import pickle
import random
import tarfile
from typing import Any
import warnings

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.streaming import EagerParts
from karmma_ros.model.weights_file import MissingWeightsError, read_weights
import numpy as np
import pytest
from safetensors.torch import save_file
import torch

from .conftest import CLASSES, small_swin, URL


def imported(path: Path, out: Path, **settings):
    return import_model('small:swin', out, ImportSettings(file=path, **settings))


def test_gives_what_the_published_network_gives(small_source, tmp_path):
    bundle = imported(small_source, tmp_path / 'out')
    x = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = bundle.network({Modality.RGB: x}, torch.ones(2, 1, dtype=torch.bool))
        torch.testing.assert_close(logits['action'], small_swin()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize('wrap', [
    lambda w: {'state_dict': w, 'epoch': 3}, lambda w: {'model': w},
    lambda w: {f'module.{name}': x for name, x in w.items()},
    lambda w: {f'_orig_mod.module.{name}': x for name, x in w.items()},
])
@pytest.mark.parametrize('name', ['a.pth', 'a.ckpt', 'a.torch', 'a.pth.tar'])
def test_reads_checkpoints_of_several_forms(small_source, tmp_path, wrap, name):
    torch.save(wrap(small_swin().state_dict()), tmp_path / name)
    assert imported(tmp_path / name, tmp_path / 'out').vocabulary.sizes == {'action': 5}


def test_reads_safetensors(small_source, tmp_path):
    save_file(small_swin().state_dict(), tmp_path / 'a.safetensors')
    assert imported(tmp_path / 'a.safetensors', tmp_path / 'out').name == 'out'


def test_the_directory_states_source_licence_and_digest(small_source, tmp_path):
    bundle = imported(small_source, tmp_path / 'out')
    digest = hashlib.sha256(small_source.read_bytes()).hexdigest()
    assert bundle.source['sha256'] == digest and bundle.source['commercial_use'] is False
    assert bundle.dataset == (
        'a data set; weights small:swin, CC BY-NC 4.0: no commercial use')
    assert load_bundle(tmp_path / 'out').source == bundle.source
    card = (tmp_path / 'out' / 'README.md').read_text()
    for text in (digest, 'CC BY-NC 4.0: no commercial use', 'A paper.', 'https://example.org',
                 'top-1 62.5 % on a data set; one clip.', '3 x 4 x 16 x 16', *CLASSES):
        assert text in card
    stored = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert stored['clip']['video']['resize'] == [20]


def without(name: str):
    return {n: x for n, x in small_swin().state_dict().items() if n != name}


@pytest.mark.parametrize(('weights', 'text'), [
    (without('head.bias'), r'1 of \d+ tensors do not fit: embeddings.rgb.project.bias is missing'),
    ({**without('head.bias'), 'classifier.bias': torch.zeros(5)}, 'the network has no .*classif'),
    (small_swin(4).state_dict(), r'project.bias is \[4\], expected \[5\]'),
    (small_swin(embed_dim=16).state_dict(), r'is \[\d+.*\], expected'),
    (small_swin(depths=[1, 3]).state_dict(), 'the network has no encoders.rgb.model.features.2.2'),
    (small_swin(depths=[1, 1]).state_dict(), r'features.2.1\S+ is missing'),
    ({**without('head.bias'), 'head.bias': torch.full((5,), torch.nan)}, 'has NaN or infinity'),
    ({**without('head.bias'), 'head.bias': torch.zeros(5, dtype=torch.int64)}, 'is torch.int64'),
    ({}, 'tensors do not fit'),
])
def test_refuses_other_weights(small_source, tmp_path, weights, text):
    torch.save(weights, tmp_path / 'other.pth')
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path / 'other.pth', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('wrapped', [
    lambda w: {'state_dict': w, 'epoch': 3}, lambda w: {'model': {'state_dict': w}},
    lambda w: {'model_state_dict': w, 'optimizer': {'state': {0: {'step': torch.zeros(1)}}}},
    lambda w: {'model_state': w}, lambda w: {'net': w}, lambda w: {'module': w},
    lambda w: {f'module.{name}': x for name, x in w.items()},
    lambda w: {f'module._orig_mod.{name}': x for name, x in w.items()},
    lambda w: {'state_dict': {f'model.{name}': x for name, x in w.items()}},
    lambda w: {name: x.double() if x.is_floating_point() else x for name, x in w.items()},
])
def test_reads_weights_however_they_are_wrapped(small_source, tmp_path, wrapped):
    torch.save(wrapped(small_swin().state_dict()), tmp_path / 'wrapped.pth')
    wanted = imported(small_source, tmp_path / 'plain').sha256
    assert imported(tmp_path / 'wrapped.pth', tmp_path / 'out').sha256 == wanted


def test_weights_of_half_precision_are_stored_as_float32(small_source, tmp_path):
    weights = {name: x.half() if x.is_floating_point() else x
               for name, x in small_swin().state_dict().items()}
    save_file(weights, tmp_path / 'half.safetensors')
    bundle = imported(tmp_path / 'half.safetensors', tmp_path / 'out')
    stored = bundle.network.state_dict()['embeddings.rgb.project.weight']
    assert stored.dtype is torch.float32
    torch.testing.assert_close(stored, weights['head.weight'].float(), rtol=0, atol=0)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    weights = small_swin().state_dict()
    return {**weights, name: change(weights[name])}


@pytest.mark.parametrize(('change', 'text'), [
    (lambda x: x.to_sparse(), 'its head.weight is torch.float32, sparse_coo'),
    (lambda x: x.to('meta'), 'its head.weight is torch.float32, meta'),
    (lambda x: x.to(torch.float8_e4m3fn), 'its head.weight is torch.float8_e4m3fn, strided'),
    (lambda x: x.to(torch.complex64), 'its head.weight is torch.complex64'),
])
def test_refuses_tensors_of_another_form(small_source, tmp_path, change, text):
    torch.save(changed('head.weight', change), tmp_path / 'other.pth')
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path / 'other.pth', tmp_path / 'out')


def test_refuses_a_safetensors_file_of_eight_bits_in_one_sentence(small_source, tmp_path):
    weights = changed('head.weight', lambda x: x.to(torch.float8_e4m3fn))
    path = tmp_path / 'other.safetensors'
    save_file(weights, path)
    with pytest.raises(InvalidSettingError) as caught:
        imported(path, tmp_path / 'out')
    assert str(caught.value) == (
        f"weights is '{path}'; expected a safetensors file or a checkpoint of tensors: its "
        'head.weight is torch.float8_e4m3fn, strided')


def write_tar(path: Path) -> None:
    with tarfile.open(path, 'w') as archive:
        archive.addfile(tarfile.TarInfo('labels.json'))


@pytest.mark.parametrize(('write', 'text'), [
    (lambda path: path.write_text('<!DOCTYPE html><html>Too many users'), 'it is a web page'),
    (lambda path: path.write_bytes(b''), 'it is empty'),
    (lambda path: path.write_bytes(b'PK' + bytes(1000)), 'damaged'),
    (write_tar, 'it is a program, or an archive of an old form'),
    (lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path), 'it is a program'),
    (lambda path: np.savez(path.open('wb'), a=np.zeros(3)), 'it is damaged, incomplete or no che'),
    (lambda path: torch.save({'x': argparse.Namespace, 'y': fractions.Fraction(1)}, path),
     'something else than tensors and plain values, fractions.Fraction, which is not read'),
    (lambda path: torch.save([1], path), 'holds a list'),
])
@pytest.mark.filterwarnings('error')
def test_states_what_a_file_is_that_has_no_weights(small_source, tmp_path, write, text):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch.jit
        write(tmp_path / 'other.pth')
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path / 'other.pth', tmp_path / 'out')


def test_the_first_problems_show_names_of_both_sides(small_source, tmp_path):
    weights = {f'visual.{name}': x for name, x in small_swin().state_dict().items()}
    torch.save(weights, tmp_path / 'other.pth')
    with pytest.raises(InvalidSettingError, match=r'bias is missing; .* is missing; the network '
                                                  r'has no encoders.rgb.model.visual.*…'):
        imported(tmp_path / 'other.pth', tmp_path / 'out')


def test_a_damaged_file_is_an_error_wherever_the_damage_is(small_source, tmp_path):
    content = small_source.read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(8):
            damaged[rng.randrange(1000)] = rng.randrange(256)
        (tmp_path / 'damaged.pth').write_bytes(damaged)
        with suppress(InvalidSettingError):  # damage that changes a name of no tensor is none
            read_weights(tmp_path / 'damaged.pth')


def test_chunks_are_encoded_each_by_itself_and_averaged(small_source, tmp_path):
    bundle = imported(small_source, tmp_path / 'out', chunk=2)
    x = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = bundle.network({Modality.RGB: x}, torch.ones(1, 1, dtype=torch.bool))['action']
        wanted = (small_swin()(x[:, :, :2]) + small_swin()(x[:, :, 2:])) / 2
        torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)
        parts = EagerParts(bundle.network)
        live = [parts.encode_chunk(Modality.RGB, x[:, :, i:i + 2].numpy()) for i in (0, 2)]
        streamed = bundle.network.fuse({Modality.RGB: parts.in_order(Modality.RGB, live)})
        torch.testing.assert_close(streamed['action'], wanted, rtol=0, atol=1e-5)
    card = (tmp_path / 'out/README.md').read_text()
    assert '## Limits\n\nIt encodes 2 of the 4 frames' in card and '62.5 %' not in card
    for chunk in (3, 4, -1):
        with pytest.raises(InvalidSettingError, match=f'--chunk is {chunk}; expected .*divides'):
            imported(small_source, tmp_path / 'other', chunk=chunk)


def test_a_model_is_called_as_its_directory(small_source, tmp_path, monkeypatch):
    (tmp_path / 'kitchen').mkdir()
    monkeypatch.chdir(tmp_path / 'kitchen')
    assert imported(small_source, Path('.')).name == 'kitchen'
    assert '# kitchen' in (tmp_path / 'kitchen/README.md').read_text()


def test_refuses_a_truncated_file(small_source, tmp_path):
    content = small_source.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 10):
        (tmp_path / 'cut.pth').write_bytes(content[:size])
        with pytest.raises(InvalidSettingError, match='expected a safetensors file or a check'):
            imported(tmp_path / 'cut.pth', tmp_path / 'out')


class Payload:
    """Something whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize('dump', [
    lambda content, path: torch.save(content, path),
    lambda content, path: path.write_bytes(pickle.dumps(content)),
])
def test_refuses_a_file_with_code_without_running_it(small_source, tmp_path, dump):
    dump({'state_dict': small_swin().state_dict(), 'hook': Payload(tmp_path / 'ran')},
         tmp_path / 'code.pth')
    with pytest.raises(InvalidSettingError, match='something else than tensors'):
        imported(tmp_path / 'code.pth', tmp_path / 'out')
    assert not (tmp_path / 'ran').exists()


def test_a_missing_file_is_named_with_its_source_and_its_path(small_source, tmp_path):
    with pytest.raises(MissingWeightsError) as caught:
        import_model('small:swin', tmp_path / 'out')
    path = tmp_path / 'torch/hub/checkpoints/small-0123abcd.pth'
    assert str(caught.value) == (
        f'weights small-0123abcd.pth are not here (there is no such file): fetch them from {URL} '
        f'and put them at {path}, or add --download, or name a local file by --file')


def test_nothing_is_downloaded_unasked(small_source, tmp_path, monkeypatch):
    requested = []

    def fetch(url, path, hash_prefix):
        requested.append((url, hash_prefix))
        Path(path).write_bytes(small_source.read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    with pytest.raises(MissingWeightsError):
        import_model('small:swin', tmp_path / 'out')
    assert not requested
    digest = hashlib.sha256(small_source.read_bytes()).hexdigest()
    import_model('small:swin', tmp_path / 'out', ImportSettings(download=True, sha256=digest))
    assert requested == [(URL, '0123abcd')]


def test_a_cache_that_cannot_be_written_is_explained(small_source, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    with pytest.raises(MissingWeightsError, match='Not a directory.*: fetch them from'):
        import_model('small:swin', tmp_path / 'out', ImportSettings(download=True))


def test_a_failed_download_is_explained(small_source, tmp_path, monkeypatch):
    def fetch(url, path, hash_prefix):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    with pytest.raises(MissingWeightsError, match=rf'\(no route to host\): fetch them from {URL}'):
        import_model('small:swin', tmp_path / 'out', ImportSettings(download=True))


def test_the_digest_of_the_published_file_is_checked(small_source, tmp_path):
    cached = tmp_path / 'torch/hub/checkpoints/small-0123abcd.pth'
    cached.parent.mkdir(parents=True)
    cached.write_bytes(small_source.read_bytes())
    with pytest.raises(InvalidSettingError, match='whose SHA-256 begins with 0123abcd'):
        import_model('small:swin', tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='whose SHA-256 begins with ffff'):
        imported(small_source, tmp_path / 'out', sha256='ffff')


def test_refuses_what_it_does_not_know(small_source, tmp_path):
    with pytest.raises(InvalidSettingError, match='SOURCE is .*torchvision:NAME, .*swin:FILE'):
        import_model('swin3d_t', tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='torchvision:swin3d_t, torchvision:swin3d_s'):
        import_model('torchvision:swin', tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='--weights is .*; expected KINETICS400_V1'):
        import_model('torchvision:swin3d_b', tmp_path / 'out', ImportSettings(weights='best'))
    with pytest.raises(InvalidSettingError, match='--file is .*there is no such file'):
        imported(tmp_path / 'nowhere.pth', tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='--file is .*a file of weights: it is no file'):
        imported(tmp_path, tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match="--sha256 is 'xyz'; expected hexadecimal digit"):
        imported(small_source, tmp_path / 'out', sha256='xyz')
    with pytest.raises(InvalidSettingError, match="SOURCE is 'ast:'; expected ast:FILE or ast:"):
        import_model('ast:', tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='--file is .*expected left out: the source has'):
        import_model(f'small:swin={small_source}', tmp_path / 'out',
                     ImportSettings(file=small_source))


def test_no_model_is_overwritten(small_source, tmp_path):
    imported(small_source, tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='--out is .*a directory that holds no model'):
        imported(small_source, tmp_path / 'out')
