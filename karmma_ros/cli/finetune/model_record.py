"""Score, calibrate and write a fine-tuned model, and print what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
import shutil
import time
from typing import Any

from karmma_ros.calibration import Calibration
from karmma_ros.cli.finetune.head_choice import (
    action_hits,
    ADDED,
    as_predictions,
    FittedHeads,
    NEAREST,
    TRAINED,
)
from karmma_ros.cli.finetune.labelled_bags import LabelledBags
from karmma_ros.cli.finetune.next_commands import next_commands
from karmma_ros.cli.finetune.run_record import RUN, ScoredSegments, write_run
from karmma_ros.cli.options import this_machine
from karmma_ros.data.folds import TEST
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import top1
from karmma_ros.evaluation.model_card import accuracy_table, model_card
from karmma_ros.evaluation.temperature_scaling import fit_calibration
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle, save_bundle, WEIGHTS
from karmma_ros.model.class_statistics import save_statistics
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.licences import inherited_licence, licence_note, with_licence
from karmma_ros.model.untrusted_files import digest_of_file
from karmma_ros.training.fused_features import FusedFeatures
from karmma_ros.training.head_training import predict
import numpy as np


def with_heads(base: Bundle, labelled: LabelledBags, fitted: FittedHeads) -> Karmma:
    """Return the network of the base with the new heads; all other weights are the base's."""
    network = build(base.config, base.spec, labelled.vocabulary)
    below = {name: x for name, x in base.network.state_dict().items()
             if not name.startswith('heads.')}
    heads = {f'heads.{name}': x for name, x in fitted.heads.state_dict().items()}
    network.load_state_dict({**below, **heads})
    return network.eval()


def write_model(
    out: Path, base: Bundle, labelled: LabelledBags, features: FusedFeatures,
    fitted: FittedHeads, command: str, options: Mapping[str, Any], began: float,
) -> None:
    """Write the model directory and the record of its run, and print the next commands."""
    calibration, problem = calibrated(fitted, labelled, base)
    scored = _scored(features, labelled, fitted)
    network = with_heads(base, labelled, fitted)
    scores = {} if scored is None else top1(scored.predictions)
    count, text = (0, '') if scored is None else (len(scored.segments), scored.text)
    source = inherited_licence([base.path])
    title = labelled.title
    if fitted.method == ADDED:
        title = f'{base.dataset}, with classes added from {title}'
    confidence = (f'Temperatures and the threshold of unknown actions were fitted on '
                  f'{calibration.fitted_on}.' if calibration
                  else f'The probabilities are not calibrated: {problem}.')
    for line in known_and_added(base, features, labelled, scored) if (
            fitted.method == ADDED) else ():
        print(line)
        confidence += f' {line}.'
    if scores:
        print(f'\ntop-1 accuracy on {count} {text}, %\n\n'
              f'{accuracy_table(scores)}\n\n{confidence}')
    save_bundle(
        out, network, base.config, base.spec, labelled.vocabulary,
        dataset=title + licence_note(source),
        card=with_licence(model_card(
            name=out.name, dataset=title, vocabulary=labelled.vocabulary,
            parameters=sum(p.numel() for p in network.parameters()), scores=scores,
            clips=count, scored=text, command=command,
            provenance=f'{date.today()}, {this_machine()}, {(time.monotonic() - began) / 60:.1f} '
            f'minutes in all. {_provenance(fitted, base)}.',
            calibration=confidence), source),
        metrics={'top1': scores, 'scored_on': text, 'base': base.model_id,
                 'method': fitted.method},
        calibration=calibration, source=source)
    if fitted.statistics is not None:
        save_statistics(out, fitted.statistics)
    shutil.rmtree(out / RUN, ignore_errors=True)  # of an earlier model
    write_run(out / RUN, labelled, fitted, scored, calibration, options,
              f'{out.name}@{digest_of_file(out / WEIGHTS).hex()[:8]}')
    print(f'wrote {out}\n\n{next_commands(out, base, labelled)}')


def _provenance(fitted: FittedHeads, base: Bundle) -> str:
    if fitted.method in (TRAINED, NEAREST, ADDED):
        return (f'{fitted.method.capitalize()} over the frozen encoders and fusion block of '
                f'{base.model_id}')
    return f'{fitted.method.capitalize()} trained, starting from {base.model_id}'


def calibrated(
    fitted: FittedHeads, labelled: LabelledBags, base: Bundle
) -> tuple[Calibration, str]:
    """
    Return the calibration on validation, or an empty one and why there is none.

    A model that classes were added to keeps that of the base: the labels do not show the old ones.
    """
    if fitted.method == ADDED:
        return base.calibration, f'{base.name} is not'
    if fitted.validation is None:
        return Calibration(), 'the training was stopped before its validation'
    fitted_on = (f'{len(fitted.validation):,} segments of {labelled.title}, validated '
                 f'{labelled.division.text}')
    try:
        return fit_calibration(fitted.validation, fitted_on), ''
    except InvalidSettingError as error:
        return Calibration(), str(error)


def _scored(
    features: FusedFeatures, labelled: LabelledBags, fitted: FittedHeads
) -> ScoredSegments | None:
    """Return the predictions for the test segments, else those of the validation."""
    test = labelled.division.rows(TEST)
    test = test[[len(features.rows_of(n)) > 0 for n in test]]
    if len(test):
        logits = predict(fitted.heads, features, test)
        return ScoredSegments(
            as_predictions(features, labelled, test, logits), test, 'test segments')
    if fitted.validation is None:
        return None
    return ScoredSegments(fitted.validation, fitted.validated,
                          f'segments, validated {labelled.division.text}')


def known_and_added(
    base: Bundle, features: FusedFeatures, labelled: LabelledBags, scored: ScoredSegments | None,
) -> Iterator[str]:
    """Yield how old and added classes are recognised with every sensor, where both are scored."""
    sizes = base.vocabulary.sizes
    if scored is None or set(sizes) != set(labelled.vocabulary.heads) or any(
            labelled.vocabulary.heads[head][:n] != base.vocabulary.heads[head]
            for head, n in sizes.items()):
        return
    hits = action_hits(scored.predictions)
    old = np.all([scored.predictions.labels[head] < n for head, n in sizes.items()], axis=0)
    for name, chosen in (('added', ~old), ('old', old)):
        if not chosen.any():
            continue
        text = (f'Segments with {name} classes, with every sensor they have: '
                f'{100 * hits[chosen].mean():.1f} % of {chosen.sum()} are right')
        if name == 'old':
            segments = scored.segments[chosen]
            heads = base.network.heads
            assert isinstance(heads, MultiHeadMLP)
            before = as_predictions(
                features, labelled, segments, predict(heads, features, segments))
            text += f', {100 * action_hits(before).mean():.1f} % before'
        yield text
