"""
Every preset at reduced width, compared with earlier logits: numerics may not drift.

After a change that is meant to alter them: `python test/model/test_frozen.py` writes them anew.
"""

from dataclasses import replace
import json
from pathlib import Path

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.presets import preset, PRESETS
from karmma_ros.prediction import Vocabulary
import pytest
import torch

FROZEN = Path(__file__).with_name('frozen_outputs.json')
SPEC = ClipSpec(
    duration=1.0, num_frames=4, video=VideoSpec(32, 32), flow=FlowSpec(4.0),
    audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=26, tiles=2,
                    tile_steps=36),
    detections=DetectionSpec(3))
VOCABULARY = Vocabulary({'verb': ('cut', 'stir', 'wash'), 'noun': ('cup', 'pan')})
SMALL = {
    'torchvision': EncoderConfig('torchvision:SwinTransformer3d', {
        'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [1, 2], 'num_heads': [1, 2],
        'window_size': [2, 4, 4]}),
    'ast': EncoderConfig('ast', {'dim': 16, 'layers': 2, 'heads': 2}),
    'stlt': EncoderConfig(
        'stlt', {'dim': 16, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 2}),
    'causal_mel': EncoderConfig('causal_mel', {
        'columns': 9, 'backbone': 'mobilenetv3_small_050', 'kernel': 3, 'grid': [2, 1]}),
    'causal_frames': EncoderConfig('causal_frames', {
        'backbone': 'mobilenetv3_small_050', 'kernel': 3, 'grid': 2}),
    'x3d': EncoderConfig('x3d', {'widths': (8, 16), 'depths': (1, 2)}),
    'x3d_continual': EncoderConfig('x3d_continual', {
        'widths': (8, 16), 'depths': (1, 2), 'grid': 1, 'delayed': False}),
    'movinet': EncoderConfig('movinet', {'variant': 'a0', 'grid': 1}),
}


_ATTENDING = replace(preset('tiny_causal'), fusion='transformer')
EARLIER = {
    'tiny_causal with a transformer': _ATTENDING,
    'tiny_causal with mel_cnn': replace(_ATTENDING, encoders={
        **_ATTENDING.encoders, Modality.AUDIO: preset('tiny').encoders[Modality.AUDIO]})}
"""What a preset was, as stored models have it."""
CASES = [*PRESETS, *EARLIER]


def reduced(name):
    """Return a preset's architecture with narrow encoders and a narrow fusion block."""
    config = EARLIER.get(name) or preset(name)
    if name.startswith('tiny'):
        columns = {'causal_mel': {'columns': 9}}
        return replace(config, encoders={
            m: replace(encoder, chunk=min(2, encoder.chunk),
                       options={**encoder.options, **columns.get(encoder.name, {})})
            for m, encoder in config.encoders.items()})
    encoders = {}
    for modality, encoder in config.encoders.items():
        small = SMALL[encoder.name.partition(':')[0]]
        kept = {k: v for k, v in encoder.options.items() if k == 'size'}
        size = {'size': [32, 32]} if kept else {}
        encoders[modality] = EncoderConfig(
            small.name, {**small.options, **size}, chunk=min(2, encoder.chunk))
    return replace(config, encoders=encoders, dim=16, heads=2, feedforward=16,
                   token_cap=min(config.token_cap, 10))


def noise(shape, key):
    """Return the same float32 numbers in -1 to 1 everywhere and always, others for each key."""
    steps = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + sum(key.encode())
    wild = torch.sin(steps * 12.9898) * 43758.5453
    return (2 * (wild - wild.floor()) - 1).float().reshape(shape)


def fill(network):
    """Return every weight a fixed value of a sensible size."""
    for name, weights in network.state_dict().items():
        if weights.is_floating_point():
            scale = 2 * (weights.numel() / len(weights)) ** -0.5 if weights.ndim > 1 else 0.3
            centre = 1.0 if name.endswith('running_var') else 0.0
            weights.copy_(centre + scale * noise(weights.shape, name))


def case(name):
    """Return a network and two clips: one with every modality, one that has only the last."""
    config, spec = reduced(name), SPEC
    if any(encoder.name == 'causal_mel' for encoder in config.encoders.values()):
        spec = replace(SPEC, audio=replace(SPEC.audio, tiles=1))
    network = build(config, spec, VOCABULARY).eval()
    fill(network)
    inputs = {m: 3 * noise((2, *spec.input_shape(m)), m) for m in network.modalities}
    if Modality.DETECTIONS in inputs:
        boxes = inputs[Modality.DETECTIONS].abs_().div_(3)
        boxes[..., 4] = (3 * boxes[..., 4]).floor()
    present = torch.ones(2, len(inputs), dtype=torch.bool)
    present[1, :-1] = False
    return network, inputs, present


@torch.inference_mode()
def logits_of(name):
    """Return the logits of the case."""
    network, inputs, present = case(name)
    return {head: logits.tolist() for head, logits in network(inputs, present).items()}


@pytest.mark.parametrize('name', CASES)
def test_outputs_do_not_drift(name):
    frozen = json.loads(FROZEN.read_text())[name]
    for head, logits in logits_of(name).items():
        torch.testing.assert_close(
            torch.tensor(logits), torch.tensor(frozen[head]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', CASES)
@torch.inference_mode()
def test_what_is_absent_changes_not_one_bit(name):
    network, inputs, present = case(name)
    before = network(inputs, present)
    for i, m in enumerate(network.modalities):
        inputs[m][~present[:, i]] = torch.nan
    after = network(inputs, present)
    assert all(torch.equal(before[head], after[head]) for head in before)


@pytest.mark.parametrize('name', CASES)
@torch.inference_mode()
def test_a_mixed_batch_equals_its_samples_one_by_one(name):
    network, inputs, present = case(name)
    network.double()  # so that another order of summing leaves no room for a mistake
    inputs = {m: x.double() for m, x in inputs.items()}
    together = network(inputs, present)
    for i in range(2):
        row = present[i:i + 1]
        chosen = [m for m, is_present in zip(network.modalities, row[0]) if is_present]
        alone = network({m: inputs[m][i:i + 1] for m in chosen}, row)
        for head in together:
            torch.testing.assert_close(
                together[head][i:i + 1], alone[head], rtol=1e-10, atol=1e-12)


if __name__ == '__main__':
    FROZEN.write_text(json.dumps({name: logits_of(name) for name in CASES}, indent=1) + '\n')
