"""The card of a model: its classes, its accuracy, and what its confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from textwrap import dedent

from karmma_ros.calibration import Calibration
from karmma_ros.evaluation.classification import ACTION, SubsetScore
from karmma_ros.evaluation.tables import escape_cell, markdown_table, percent
from karmma_ros.modality import parse_subset
from karmma_ros.prediction import Vocabulary

ACCURACY, CONFIDENCE = 'Top-1 accuracy', 'Confidence'
"""How the titles of these sections begin."""


def accuracy_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """
    Return a Markdown table in percent, one row a subset.

    :param scores: subset → head, and the action, → accuracy, 0 to 1.
    """
    columns = list(next(iter(scores.values())))
    return markdown_table(['sensors', *columns], [
        [name, *(f'{100 * row[key]:.1f}' for key in columns)] for name, row in scores.items()])


def calibration_table(scores: Mapping[str, SubsetScore], calibration: Calibration) -> str:
    """
    Return a Markdown table of the temperatures, and of the figures with and without, in percent.

    :param scores: subset → score, of those that are calibrated.
    """
    first = next(iter(scores.values()))
    heads, joint = [*calibration.heads], list(first.scores)[-1]
    rows = []
    for subset, each in scores.items():
        own, figures = calibration.of(parse_subset(subset)), each.scores[joint]
        rows.append([
            subset, *(f'{own.temperatures.get(head, 1.0):.2f}' for head in heads),
            *(percent(x if x is not None else math.nan) for x in (
                figures.uncalibrated_error, figures.calibration_error, each.unknown))])
    return markdown_table(
        ['sensors', *(f'temperature, {escape_cell(head)}' for head in heads),
         f'{escape_cell(joint)} calibration error without', 'with', 'unknown'], rows)


def accuracy_title(clips: int, scored: str = 'test clips') -> str:
    """Return the title of the section with `accuracy_section`."""
    return f'{ACCURACY} on {clips:,} {scored}, %'


def accuracy_section(scores: Mapping[str, Mapping[str, float]]) -> str:
    """
    Return the accuracy of each subset, and what an action is where it has several parts.

    :param scores: as of `accuracy_table`.
    """
    heads = [key for key in next(iter(scores.values())) if key != ACTION]
    rule = f'\n\nAn {ACTION} is right when {" and ".join(f"its {h}" for h in heads)} are.'
    return accuracy_table(scores) + (rule if heads[1:] else '')


def confidence_section(
    scores: Mapping[str, SubsetScore], calibration: Calibration, scored: str = 'test clips',
) -> str:
    """
    Return what the calibration was fitted on, and what it is worth on other clips.

    :param scores: subset → score with this calibration.
    :param scored: what these clips are, in words.
    """
    return (f'Temperatures, the scale of the scores of actions and the threshold of unknown '
            f'actions were fitted on {calibration.fitted_on}, the threshold to take '
            f'{100 * calibration.false_alarm_rate:g} % of them for unknown. On the {scored}, '
            f'expected calibration error and what is taken for unknown, %:\n\n'
            + calibration_table(scores, calibration))


def model_card(
    *, name: str, dataset: str, parameters: int, vocabulary: Vocabulary,
    scores: Mapping[str, Mapping[str, float]], clips: int, command: str, provenance: str,
    calibration: str = '', scored: str = 'test clips',
) -> str:
    """
    Return the model card of a bundle, in Markdown.

    :param scores: subset → head → top-1 accuracy on the test split, 0 to 1; empty: none.
    :param clips: number of scored clips.
    :param command: the command that trained the model.
    :param provenance: where and when it was trained, in words.
    :param calibration: what its confidence is worth, in Markdown; empty: nothing is stated.
    :param scored: what the scored clips are, in words.
    """
    heads, dataset = tuple(vocabulary.heads), _without_html(dataset)
    front = dedent(f"""\
        ---
        license: apache-2.0
        library_name: karmma_ros
        pipeline_tag: video-classification
        ---

        # {_without_html(name)}

        A KARMMA student of {parameters / 1e6:.2f} M parameters, trained on {dataset}.
        It recognises {_with_articles(heads)} from any subset of RGB video (V), optical flow (F),
        audio (A) and detections (D). It knows no other world than that data set.
        """)
    classes = '\n'.join(f'- {head} ({len(names)}): {", ".join(map(escape_cell, names))}'
                        for head, names in vocabulary.heads.items())
    return '\n'.join([
        front,
        *([f'## {accuracy_title(clips, scored)}\n\n{accuracy_section(scores)}\n']
          if scores else []),
        *([f'## {CONFIDENCE}\n\n{calibration}\n'] if calibration else []),
        f'## Classes\n\n{classes}\n',
        f'## How it was made\n\n    {command}\n\n{provenance}\n'])


def _without_html(text: str) -> str:
    return text.replace('<', '&lt;')


def _with_articles(nouns: Sequence[str]) -> str:
    """Return "a verb, a noun and an action"."""
    words = [('an ' if noun[0] in 'aeiou' else 'a ') + noun for noun in nouns]
    return ' and '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)
