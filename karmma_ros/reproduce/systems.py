"""
Every system of the paper's tables at tiny size, and how much of it a budget pays for.

As in the paper the teacher's encoders are pretrained on other data and frozen, the students'
video and flow encoders start from such weights too, and those of audio and boxes from random ones.
In place of Kinetics-400 stands the garage, the other domain of the Synthetic Kitchen: the same
verbs with other objects, view and audio. The experts of Radevski et al. are trained on the
kitchen, on clips of another seed: trained on the clips of its student, a teacher would give it no
more than their labels. Pretrained encoders are the same for all seeds, as published weights are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.presets import ensemble, only, preset, unimodal
from karmma_ros.reproduce.experiments import (
    ENCODER,
    ENSEMBLE,
    Experiment,
    STUDENT,
    TEACHER,
    TOKENS,
)
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.run import RunSettings

TOKEN_CAPS: tuple[int | None, ...] = (None, 24, 16, 5)
"""Of 36 tokens; the paper's 785, 500, 300 and 100 in proportion, 16 being our presets'."""
DROPOUTS = (0.0, 0.25, 0.5, 0.75)
"""Table VI."""
GAMMAS = (1.0, 0.7, 0.4, 0.1)
"""Table IV."""
HALF_TEACHER = 'half_teacher'
EXPERT, GARAGE_STUDENT, GARAGE_TEACHER = 'expert', 'garage_student', 'garage_teacher'
"""Encoders trained alone: on the kitchen, and on the garage in both sizes."""
PRETRAINED = (Modality.RGB, Modality.FLOW)
"""The students' encoders that have published weights in the paper."""


@dataclass(frozen=True)
class Budget:
    """How much is rendered and for how long everything is trained."""

    data: KitchenSettings
    pretraining: KitchenSettings
    """Other clips of the kitchen, for experts; only the training split is used."""
    garage: KitchenSettings
    """Clips of the garage, which stand for Kinetics-400."""
    seeds: int
    encoder_epochs: int
    teacher_epochs: int
    student_epochs: int
    """Of the main systems; all ablations take half, as in the paper."""
    jobs: int
    """Experiments run at a time."""
    precision: str = 'bf16-mixed'
    device: str = 'cpu'


def _experts(clips: int) -> KitchenSettings:
    return KitchenSettings(clips, 1, 1, seed=1)


def _garage(clips: int, others: int) -> KitchenSettings:
    return KitchenSettings(clips, others, others, seed=1, domain='garage')


BUDGETS = {
    'quick': Budget(
        KitchenSettings(960, 160, 480), _experts(1440), _garage(2880, 160), seeds=3,
        encoder_epochs=6, teacher_epochs=8, student_epochs=4, jobs=2),
    'cpu': Budget(
        KitchenSettings(2400, 400, 1600), _experts(4800), _garage(14400, 400), seeds=3,
        encoder_epochs=9, teacher_epochs=20, student_epochs=48, jobs=2),
    'gpu': Budget(
        KitchenSettings(9600, 800, 3200), _experts(19200), _garage(38400, 800), seeds=5,
        encoder_epochs=30, teacher_epochs=60, student_epochs=60, jobs=4, device='cuda'),
}


def budget(name: str) -> Budget:
    """
    Return a budget by name.

    :raises InvalidSettingError: when there is none of that name.
    """
    if name not in BUDGETS:
        raise InvalidSettingError('budget', name, ', '.join(BUDGETS))
    return BUDGETS[name]


def all_experiments(plan: Budget) -> dict[str, Experiment]:
    """Return every experiment by name, dependencies first."""
    experiments = [*_encoders(plan), *_shared(plan)]
    seeds = range(plan.seeds)
    for seed in seeds:
        experiments += _main(plan, seed)
    for seed in seeds:
        experiments += _ablations(plan, seed)
    return {experiment.name: experiment for experiment in experiments}


def seeded(name: str, seed: int) -> str:
    """Name the experiment of a system with a seed."""
    return f'{name}/{seed}'


def _encoders(plan: Budget) -> list[Experiment]:
    run = _run(plan, plan.encoder_epochs, 0, OptimizerSettings(
        learning_rate=2e-3, weight_decay=0.05, modality_dropout=0.0, label_smoothing=0.1))
    student, teacher = preset('tiny'), preset('tiny_teacher')
    return [
        Experiment(f'{name}/{modality}', ENCODER, unimodal(config, modality), run,
                   pretraining=clips)
        for name, config, modalities, clips in (
            (EXPERT, student, PAPER_MODALITIES, plan.pretraining),
            (GARAGE_STUDENT, student, PRETRAINED, plan.garage),
            (GARAGE_TEACHER, teacher, PAPER_MODALITIES, plan.garage))
        for modality in modalities]


def _shared(plan: Budget) -> list[Experiment]:
    small = {m: f'{EXPERT}/{m}' for m in PAPER_MODALITIES}
    large = {m: f'{GARAGE_TEACHER}/{m}' for m in PAPER_MODALITIES}
    return [
        Experiment('tokens', TOKENS, preset('tiny_teacher'), encoders=large),
        Experiment('radevski', ENSEMBLE, ensemble(preset('tiny')), encoders=small)]


def _main(plan: Budget, seed: int) -> list[Experiment]:
    """Table I, Table II and Fig. 4."""
    teacher = seeded('teacher', seed)
    epochs = plan.student_epochs
    alone = unimodal(preset('tiny'), Modality.RGB)
    seeing = replace(only(preset('tiny'), [Modality.RGB]), preset='tiny_v', missing='omit')
    return [
        _teacher(plan, seed, 'teacher', preset('tiny_teacher'), plan.teacher_epochs, 0.5),
        _student(plan, seed, 'baseline', _omitting(), epochs, dropout=0.0),
        _student(plan, seed, 'delta', preset('tiny'), epochs),
        _student(plan, seed, 'karmma', preset('tiny'), epochs, teacher),
        _student(plan, seed, 'karmma_v', seeing, epochs, teacher),
        _student(plan, seed, 'radevski_student', alone, epochs, 'radevski'),
    ]


def _ablations(plan: Budget, seed: int) -> list[Experiment]:
    """Tables III to VI."""
    teacher = seeded('teacher', seed)
    half = max(1, plan.student_epochs // 2)
    experiments = [
        _student(plan, seed, 'half_baseline', _omitting(), half, dropout=0.0),
        _student(plan, seed, 'half_dropout', _omitting(), half),
        *(_student(plan, seed, gamma_name(g), preset('tiny'), half, teacher if g < 1 else '',
                   gamma=g) for g in GAMMAS)]
    half = max(1, plan.teacher_epochs // 2)
    experiments += [
        _teacher(plan, seed, dropout_name(p), preset('tiny_teacher'), half, p) for p in DROPOUTS]
    for cap in TOKEN_CAPS:
        if cap_name(cap) != HALF_TEACHER:
            config = replace(preset('tiny_teacher'), **(
                {'reduction': 'none'} if cap is None else {'token_cap': cap}))
            experiments.append(_teacher(plan, seed, cap_name(cap), config, half, 0.5))
    return experiments


def gamma_name(gamma: float) -> str:
    """Name the system of a row of Table IV; 1 and 0.7 are rows of Table III too."""
    return f'half_gamma_{100 * gamma:.0f}'


def dropout_name(dropout: float) -> str:
    """Name the system of a row of Table VI."""
    return HALF_TEACHER if dropout == 0.5 else f'{HALF_TEACHER}_dropout_{100 * dropout:.0f}'


def cap_name(cap: int | None) -> str:
    """Name the system of a row of Table V."""
    own = cap == preset('tiny_teacher').token_cap
    return HALF_TEACHER if own else f'{HALF_TEACHER}_tokens_{cap or "all"}'


def _omitting() -> ModelConfig:
    """Return the Baseline: no learned tokens, absent modalities are left out."""
    return replace(preset('tiny'), preset='tiny_baseline', missing='omit')


def _teacher(
    plan: Budget, seed: int, name: str, config: ModelConfig, epochs: int, dropout: float
) -> Experiment:
    run = _run(plan, epochs, seed, OptimizerSettings(
        learning_rate=1e-3, weight_decay=0.05, gradient_clip=1.0, modality_dropout=dropout,
        augmentation=0.0))
    return Experiment(seeded(name, seed), TEACHER, config, run, tokens='tokens',
                encoders={m: f'{GARAGE_TEACHER}/{m}' for m in config.modalities})


def _student(
    plan: Budget, seed: int, name: str, config: ModelConfig, epochs: int, teacher: str = '',
    *, dropout: float = 0.5, gamma: float = 0.7,
) -> Experiment:
    run = _run(
        plan,
        epochs,
        seed,
        OptimizerSettings(
            learning_rate=1e-3,
            weight_decay=0.01,
            gradient_clip=2.0,
            modality_dropout=dropout,
            gamma=gamma,
        ),
    )
    start = {m: f'{GARAGE_STUDENT}/{m}' for m in config.modalities if m in PRETRAINED}
    return Experiment(seeded(name, seed), STUDENT, config, run, start, teacher=teacher)


def _run(plan: Budget, epochs: int, seed: int, optimizer: OptimizerSettings) -> RunSettings:
    return RunSettings(
        epochs=epochs, batch_size=32, seed=seed, precision=plan.precision, progress=False,
        device=plan.device, devices='1', optimizer=optimizer)
