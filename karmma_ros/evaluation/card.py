"""The model card that travels with a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent

from karmma_ros.evaluation.subsets import markdown
from karmma_ros.prediction import Vocabulary


def model_card(
    *,
    name: str,
    dataset: str,
    parameters: int,
    vocabulary: Vocabulary,
    scores: Mapping[str, Mapping[str, float]],
    clips: int,
    command: str,
    made: str,
) -> str:
    """
    Write a model card in Markdown.

    :param scores: subset → head → top-1 accuracy on the test split, 0 to 1.
    :param clips: number of test clips.
    :param command: the command that made the model.
    :param made: where and when it was made, in words.
    """
    heads = tuple(vocabulary.heads)
    classes = '\n'.join(
        f'- {head} ({len(names)}): {", ".join(names)}'
        for head, names in vocabulary.heads.items()
    )
    front = dedent(f"""\
        ---
        license: apache-2.0
        library_name: karmma_ros
        pipeline_tag: video-classification
        ---

        # {name}

        A KARMMA student of {parameters / 1e6:.2f} M parameters, trained on {dataset}.
        It recognises {_words(vocabulary)} from any subset of RGB video (V), optical flow (F),
        audio (A) and detections (D). It knows no other world than that data set.
        """)
    return '\n'.join([
        front,
        f'## Top-1 accuracy on {clips:,} test clips, %\n',
        markdown(scores) + '\n',
        *([f'An action is right when {" and ".join(f"its {h}" for h in heads)} are.\n']
          if len(heads) > 1 else []),
        f'## Classes\n\n{classes}\n',
        f'## How it was made\n\n    {command}\n\n{made}\n',
    ])


def _words(vocabulary: Vocabulary) -> str:
    """Return the heads in words: a verb and a noun."""
    words = [('an ' if head[0] in 'aeiou' else 'a ') + head for head in vocabulary.heads]
    return ' and '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)
