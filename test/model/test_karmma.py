"""The logits depend on the present modalities, and on nothing else."""

from dataclasses import replace

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality, PAPER_MODALITIES, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.presets import preset, PRESETS
import pytest
import torch

ORDER = PAPER_MODALITIES
SUBSETS = subsets(PAPER_MODALITIES)


def mask(*rows):
    """Return the mask of one row of modalities for each sample."""
    return torch.tensor([[m in row for m in ORDER] for row in rows])


def assert_same(ours, theirs):
    for head in ours:
        torch.testing.assert_close(ours[head], theirs[head], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('chosen', SUBSETS, ids=str)
def test_every_subset_gives_finite_logits_of_each_head(network, inputs, chosen):
    logits = network({m: inputs[m] for m in chosen}, mask(*[chosen] * 3))
    assert {head: tuple(x.shape) for head, x in logits.items()} == {
        'verb': (3, 3), 'noun': (3, 4)}
    assert all(torch.isfinite(x).all() for x in logits.values())


@pytest.mark.parametrize('chosen', SUBSETS[1:], ids=str)
def test_the_content_of_an_absent_modality_changes_nothing(network, inputs, chosen):
    present = mask(*[chosen] * 3)
    before = network(inputs, present)
    poisoned = {m: x if m in chosen else torch.full_like(x, torch.nan)
                for m, x in inputs.items()}
    after = network(poisoned, present)
    assert all(torch.equal(before[head], after[head]) for head in before)


def test_a_mixed_batch_equals_its_samples_one_by_one(network, inputs):
    rows = [(Modality.RGB, Modality.AUDIO), (Modality.DETECTIONS,), PAPER_MODALITIES]
    together = network(inputs, mask(*rows))
    for i, row in enumerate(rows):
        alone = network({m: inputs[m][i:i + 1] for m in row}, mask(row))
        assert_same({h: x[i:i + 1] for h, x in together.items()}, alone)


def test_a_mixed_batch_does_not_read_what_is_absent(network, inputs):
    rows = [(Modality.RGB, Modality.AUDIO), (Modality.DETECTIONS,), PAPER_MODALITIES]
    before = network(inputs, mask(*rows))
    for i, row in enumerate(rows):
        for m in PAPER_MODALITIES:
            if m not in row:
                inputs[m][i] = torch.nan
    after = network(inputs, mask(*rows))
    assert all(torch.equal(before[head], after[head]) for head in before)


def test_fusing_encodings_equals_the_forward_pass(network, inputs):
    chosen = (Modality.FLOW, Modality.AUDIO)
    tokens = {m: network.encode(m, inputs[m]) for m in PAPER_MODALITIES}
    fused = network.fuse({m: tokens[m] for m in chosen})
    assert_same(fused, network(inputs, mask(*[chosen] * 3)))


def test_sensors_matter(network, inputs):
    one, other = (network(inputs, mask(*[s] * 3)) for s in (SUBSETS[0], SUBSETS[-1]))
    assert not torch.allclose(one['verb'], other['verb'])


def test_every_learned_token_gets_a_gradient(network, inputs):
    network.train()
    present = mask((Modality.RGB,), (Modality.FLOW, Modality.AUDIO), (Modality.DETECTIONS,))
    sum(x.sum() for x in network(inputs, present).values()).backward()
    lacking = [name for name, p in network.named_parameters() if p.grad is None]
    assert lacking == []


@pytest.mark.parametrize('rows', [[()], [(Modality.RGB,), ()]])
def test_a_sample_without_any_sensor_is_refused(network, inputs, rows):
    with pytest.raises(InvalidSettingError, match='at least one modality a sample'):
        network({m: x[:len(rows)] for m, x in inputs.items()}, mask(*rows))


def test_wrong_masks_are_refused(network, inputs):
    with pytest.raises(InvalidSettingError, match=r'\[batch, 4\] for V\+F\+A\+D'):
        network(inputs, torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(InvalidSettingError, match='bool tensor'):
        network(inputs, torch.ones(3, 4))


def test_a_present_modality_needs_its_input(network, inputs):
    del inputs[Modality.AUDIO]
    with pytest.raises(InvalidSettingError, match='an entry for audio, which is present'):
        network(inputs, mask(*[ORDER] * 3))


def test_an_input_of_another_shape_is_refused(network, inputs):
    inputs[Modality.AUDIO] = inputs[Modality.AUDIO][..., :-1]
    with pytest.raises(InvalidSettingError, match=(
            r'inputs.audio is \[3, 1, 16, 99\]; expected a tensor \[3, 1, 16, 100\]')):
        network(inputs, mask(*[ORDER] * 3))
    with pytest.raises(InvalidSettingError, match=r'inputs.rgb is \[3, 3, 4, 16, 16\]'):
        network(inputs, mask(*[ORDER] * 2))


def test_frozen_encoders_neither_learn_nor_behave_as_in_training(config, spec, vocabulary, inputs):
    network = build(replace(config, freeze_encoders=True), spec, vocabulary)
    network.train()
    assert network.fusion.training and not network.encoders.training
    before = {k: v.clone() for k, v in network.encoders.state_dict().items()}
    sum(x.sum() for x in network(inputs, mask(*[ORDER] * 3)).values()).backward()
    assert all(p.grad is None for p in network.encoders.parameters())
    assert all(p.grad is not None for p in network.embeddings['rgb'].project.parameters())
    after = network.encoders.state_dict()  # batch norm has counted nothing
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize('reduction', ['tau_average', 'even', 'none'])
def test_every_reduction_gives_its_number_of_tokens(
    config, spec, vocabulary, inputs, reduction
):
    network = build(replace(config, reduction=reduction, token_cap=3), spec, vocabulary).eval()
    counts = {m: network.encode(m, inputs[m]).shape[1] for m in PAPER_MODALITIES}
    assert counts == {m: len(network.embeddings[m.value].absent_tokens) for m in PAPER_MODALITIES}
    full = {Modality.RGB: 8, Modality.FLOW: 8, Modality.AUDIO: 25, Modality.DETECTIONS: 4}
    assert counts == (full if reduction == 'none' else dict.fromkeys(PAPER_MODALITIES, 3))


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_builds(name, spec, vocabulary):
    spec = replace(spec, num_frames=16)  # which every chunk divides
    with torch.device('meta'):  # shapes only: the teacher has a quarter of a billion weights
        network = build(preset(name), spec, vocabulary)
    assert network.modalities == preset(name).modalities


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InvalidSettingError, match="preset is 'huge'; expected tiny"):
        preset('huge')
