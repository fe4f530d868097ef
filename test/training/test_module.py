"""One step of the student's training: inputs of student and teacher, terms of the loss."""

from dataclasses import replace

from karmma_ros.data.samples import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.prediction import Vocabulary
from karmma_ros.training.input_corruption import InputCorruption
from karmma_ros.training.losses import classification_loss, distillation_loss
from karmma_ros.training.module import OptimizerSettings, RecognitionModule
from karmma_ros.training.teacher import check_teacher, FrozenTeacher
import numpy as np
import pytest
import torch

BARE = {'augmentation': 0.0, 'modality_dropout': 0.0}


@pytest.fixture
def batch(inputs):
    """Return three samples, the second of which has no flow."""
    present = torch.ones(3, 4, dtype=torch.bool)
    present[1, 1] = False
    return Batch(inputs, present, {'verb': torch.tensor([0, 1, 2]),
                                   'noun': torch.tensor([3, 0, 1])},
                 torch.arange(3))


@pytest.fixture
def student(config, spec, vocabulary):
    """Return a small student in evaluation mode, so that a step is deterministic."""
    torch.manual_seed(1)
    return build(config, spec, vocabulary).eval()


@pytest.fixture
def bundle(tmp_path, config, spec, vocabulary):
    """Return another small network as a model directory."""
    torch.manual_seed(2)
    network = build(config, spec, vocabulary)
    save_bundle(tmp_path / 't', network, config, spec, vocabulary, dataset='', card='')
    return load_bundle(tmp_path / 't')


def step(student, batch, teacher=None, **settings):
    module = RecognitionModule(student, OptimizerSettings(**{**BARE, **settings}), teacher=teacher)
    module.log = lambda *_, **__: None
    return module.training_step(batch, 0)


def test_without_a_teacher_it_is_the_cross_entropy_of_the_present_modalities(student, batch):
    wanted = classification_loss(student(batch.inputs, batch.present), batch.labels)
    assert step(student, batch).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_with_a_teacher_it_is_equation_4(student, batch, bundle):
    logits = student(batch.inputs, batch.present)
    distillation = distillation_loss(logits, bundle.network(batch.inputs, batch.present))
    wanted = 0.6 * classification_loss(logits, batch.labels) + 0.4 * distillation
    loss = step(student, batch, FrozenTeacher(bundle.network), gamma=0.6)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_each_modality_alone_is_added(student, batch):
    wanted = classification_loss(student(batch.inputs, batch.present), batch.labels)
    for column, modality in enumerate(student.modalities):
        rows = batch.present[:, column]
        mask = torch.zeros(int(rows.sum()), 4, dtype=torch.bool)
        mask[:, column] = True
        alone = student({modality: batch.inputs[modality][rows]}, mask)
        wanted = wanted + 0.5 * classification_loss(
            alone, {head: ids[rows] for head, ids in batch.labels.items()})
    loss = step(student, batch, unimodal_weight=0.5)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_student_and_teacher_see_the_same_modalities(student, batch, bundle):
    given = []

    class Recording(FrozenTeacher):
        def __call__(self, batch, present):
            given.append(torch.stack(list(present.values()), 1))
            return super().__call__(batch, present)

    seen = []
    encode_present = student.encode_present
    student.encode_present = lambda x, present: seen.append(present) or encode_present(x, present)
    step(student, batch, Recording(bundle.network), modality_dropout=0.6)
    assert torch.equal(given[0], seen[0])
    assert not torch.equal(given[0], batch.present)


def test_the_teacher_stays_frozen(student, batch, bundle):
    teacher = FrozenTeacher(bundle.network)
    before = {k: v.clone() for k, v in bundle.network.state_dict().items()}
    module = RecognitionModule(student, OptimizerSettings(**BARE), teacher=teacher).train()
    module.log = lambda *_, **__: None
    module.training_step(batch, 0).backward()
    assert not bundle.network.training
    assert all(p.grad is None for p in bundle.network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in bundle.network.state_dict().items())
    assert not any('teacher' in name for name in module.state_dict())


def test_a_teacher_of_other_classes_is_refused(student, bundle, spec):
    other = Vocabulary({'verb': ('a', 'b', 'c'), 'noun': ('w', 'x', 'y', 'z')})
    with pytest.raises(InvalidSettingError, match='the very classes of the student'):
        check_teacher(bundle, student, spec, other)


def without(config, *names):
    encoders = {m: e for m, e in config.encoders.items() if m.value not in names}
    return replace(config, encoders=encoders)


def test_a_teacher_that_lacks_a_modality_is_refused(
    config, spec, vocabulary, student, tmp_path
):
    silent = without(config, 'audio')
    save_bundle(tmp_path / 'silent', build(silent, spec, vocabulary), silent, spec, vocabulary,
                dataset='', card='')
    with pytest.raises(InvalidSettingError, match=r'takes V\+F\+A\+D or more, as the student'):
        check_teacher(load_bundle(tmp_path / 'silent'), student, spec, vocabulary)


def test_what_the_student_does_not_take_is_never_dropped_from_the_teacher(
    config, spec, vocabulary, batch, bundle
):
    rgb_only = build(without(config, 'flow', 'audio', 'detections'), spec, vocabulary).eval()
    distillation = distillation_loss(
        rgb_only(batch.inputs, batch.present[:, :1]), bundle.network(batch.inputs, batch.present))
    loss = step(rgb_only, batch, FrozenTeacher(bundle.network), modality_dropout=0.9, gamma=0.0)
    assert loss.item() == pytest.approx(distillation.item(), rel=1e-5)


def test_samples_without_any_of_the_modalities_are_skipped(
    config, spec, vocabulary, batch
):
    flow_only = build(without(config, 'rgb', 'audio', 'detections'), spec, vocabulary).eval()
    alone = Batch({m: x for m, x in batch.inputs.items() if m.value == 'flow'},
                  batch.present[:, 1:2], batch.labels, batch.index)
    some = alone.present[:, 0]
    wanted = classification_loss(
        flow_only(alone.rows(some).inputs, alone.present[some]), alone.rows(some).labels)
    assert step(flow_only, alone).item() == pytest.approx(wanted.item(), rel=1e-5)
    nobody = alone.rows(~some)
    loss = step(flow_only.train(), nobody)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None for p in flow_only.parameters())


def mixed(student, batch, **settings):
    """Return a module that mixes, and how it mixes this batch."""
    module = RecognitionModule(student, OptimizerSettings(**{**BARE, 'mixup': 0.5, **settings}))
    module.log = lambda *_, **__: None
    return module, module._mix(batch, 0)


def test_mixup_mixes_inputs_and_labels_by_the_same_fraction(student, batch):
    module, mix = mixed(student, batch)
    other = mix.partner
    assert sorted(other.tolist()) == [0, 1, 2] and 0 < mix.fraction < 1
    inputs = {}
    for column, (modality, x) in enumerate(batch.inputs.items()):
        both = batch.present[:, column] & batch.present[other, column]
        inputs[modality] = torch.stack([
            mix.fraction * x[i] + (1 - mix.fraction) * x[other[i]] if both[i] else x[i]
            for i in range(3)])
    logits = student(inputs, batch.present)
    wanted = mix.fraction * classification_loss(logits, batch.labels) + (
        1 - mix.fraction) * classification_loss(
            logits, {head: ids[other] for head, ids in batch.labels.items()})
    assert module.training_step(batch, 0).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_mixup_depends_on_seed_and_step_alone(student, batch):
    first, again = (mixed(student, batch)[1] for _ in range(2))
    assert first.fraction == again.fraction and first.partner.equal(again.partner)
    module = RecognitionModule(student, OptimizerSettings(**BARE, mixup=0.5), seed=1)
    assert module._mix(batch, 0).fraction != first.fraction
    assert mixed(student, batch, mixup=0.0)[1] is None


def test_cached_logits_of_the_teacher_are_mixed_as_probabilities(student, batch):
    class Cached:
        modalities, reads = student.modalities, ()

        def __call__(self, batch, present):
            return {'verb': torch.tensor([[9.0, 0, 0]] * 3).roll(1, 1),
                    'noun': torch.eye(4)[:3] * 9}
    module, mix = mixed(student, batch)
    p = (torch.eye(4)[:3] * 9).softmax(1)
    torch.testing.assert_close(
        mix.logits(torch.eye(4)[:3] * 9).softmax(1),
        mix.fraction * p + (1 - mix.fraction) * p[mix.partner], rtol=1e-4, atol=1e-6)
    module.teacher = Cached()
    assert torch.isfinite(module.training_step(batch, 0))


V, F, A, D = PAPER_MODALITIES


def corrupting(spec, probability=1.0, seed=3, computed=(F,)):
    return InputCorruption(probability, seed, spec, computed)


@pytest.fixture
def inputs(inputs):
    """Return inputs whose boxes have corners in order."""
    corners = inputs[D][..., :4].reshape(-1, 2, 2).sort(dim=1).values
    inputs[D][..., :4] = corners.reshape(*inputs[D].shape[:3], 4)
    return inputs


def everything(inputs, count=3):
    return {m: torch.ones(count, dtype=torch.bool) for m in inputs}


def test_a_corruption_depends_on_seed_step_and_index_in_the_step_alone(inputs, spec):
    apply = corrupting(spec)
    together = apply(inputs, everything(inputs), 5, [0, 1, 2])
    assert any(not torch.equal(together[m], x) for m, x in inputs.items())
    for row in range(3):
        alone = apply({m: x[row:row + 1] for m, x in inputs.items()}, everything(inputs, 1), 5,
                      [row])
        assert all(torch.equal(alone[m][0], together[m][row]) for m in inputs)
    for other in (corrupting(spec, seed=4)(inputs, everything(inputs), 5, [0, 1, 2]),
                  apply(inputs, everything(inputs), 6, [0, 1, 2])):
        assert any(not torch.equal(other[m], together[m]) for m in inputs)


def test_one_sensor_of_a_sample_is_corrupted_and_flow_follows_its_camera(inputs, spec):
    cameras = 0
    for step_ in range(20):
        corrupted = corrupting(spec)(inputs, everything(inputs), step_, [0, 1, 2])
        for row in range(3):
            changed = {m for m, x in inputs.items() if not torch.equal(corrupted[m][row], x[row])}
            assert changed <= {V, F} or len(changed) == 1
            cameras += V in changed
            if V in changed:
                frames = modality_type(V).restore(corrupted[V][row].numpy(), spec)
                flow = modality_type(F)
                expected = flow.prepare(flow.recomputed(frames, spec), spec)
                assert np.allclose(corrupted[F][row], expected)
    assert cameras > 5


def test_what_is_absent_is_not_corrupted_and_a_probability_is_kept(inputs, spec):
    present = {**everything(inputs), V: torch.zeros(3, dtype=torch.bool)}
    corrupted = corrupting(spec)(inputs, present, 0, [0, 1, 2])
    assert torch.equal(corrupted[V], inputs[V])
    count = sum(not torch.equal(corrupting(spec, 0.25)(
        {A: inputs[A][:1]}, {A: torch.ones(1, dtype=torch.bool)}, 0, [i])[A], inputs[A][:1])
        for i in range(200))
    assert 30 < count < 70


def test_the_teacher_sees_the_clean_clip(student, batch, spec):
    class Watching:
        modalities = reads = PAPER_MODALITIES

        def __call__(self, given, present):
            self.inputs = given.inputs
            return {head: torch.zeros(len(given), n) for head, n in (('verb', 3), ('noun', 4))}

    teacher, seen = Watching(), {}
    encode = student.encode_present
    student.encode_present = lambda x, present: seen.update(x) or encode(x, present)
    module = RecognitionModule(
        student, OptimizerSettings(**BARE), teacher=teacher, corruption=corrupting(spec))
    module.log = lambda *_, **__: None
    module.training_step(batch, 0)
    assert all(torch.equal(teacher.inputs[m], x) for m, x in batch.inputs.items())
    assert any(not torch.equal(seen[m], x) for m, x in batch.inputs.items())


def test_corruption_is_off_unless_it_is_set_and_needs_samples(spec):
    assert OptimizerSettings().corruption == 0
    assert InputCorruption.of_clips(0.0, 0, object()) is None
    with pytest.raises(InvalidSettingError, match='optimizer.corruption'):
        InputCorruption.of_clips(0.5, 0, object())
    with pytest.raises(InvalidSettingError, match='optimizer.corruption'):
        OptimizerSettings(corruption=1.5)
