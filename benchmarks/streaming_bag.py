"""
Accuracy of trained students in a video of one action after the other, window by window.

A clip of the test split has no frames before it; a window of a video has, and a stateful encoder
has seen them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.cli.main import main as karmma
from karmma_ros.evaluation.window_inference import BatchInference, inference_for, SubsetPredictions
from karmma_ros.modality import subset_name, subsets
from karmma_ros.model.bundle import Bundle
from karmma_ros.stream.settings import node_parameters

EPISODES, EPISODE_S = 160, 4
"""Held-out actions in a row, and the seconds of each."""


def video(path: Path, episodes: int = EPISODES) -> Path:
    """Return the bag of a video of so many actions, written if it is missing."""
    if not path.exists():
        karmma(['bag', 'synthetic', str(path), '--episodes', str(episodes), '--seconds',
                str(EPISODE_S)])
    return path


def recognised(
    path: Path, bundle: Bundle, hop: int, independent: bool = False
) -> dict[str, float]:
    """
    Return subset → windows whose action is correct, percent, of those with one action only.

    :param hop: frames from one window to the next.
    :param independent: process each window without the state of earlier ones.
    """
    inference = BatchInference(bundle) if independent else inference_for(bundle)
    modalities = bundle.network.modalities
    predicted = []
    with Bag(path) as bag:
        replay = Replay(bag, choose_topics(bag, {}, modalities), bundle.spec, modalities,
                        node_parameters(), [Run()], hop=hop)
        for request in replay.windows():
            prepared = inference.prepare(0, request.window)
            if prepared.modalities == modalities:
                predictions = inference([prepared], [subsets(modalities)])
                predicted.append((request.window.start_ns, request.window.end_ns, predictions))
    right: Counter[str] = Counter()
    count = 0
    for start_ns, end_ns, predictions in predicted:
        action = next(((verb, noun) for action_start_ns, action_end_ns, verb, noun in replay.truths
                       if action_start_ns <= start_ns and end_ns <= action_end_ns), None)
        count += action is not None
        for subset, prediction in predictions.items():
            right[subset_name(subset)] += _best(bundle, prediction) == action
    return {subset_name(each): 100 * right[subset_name(each)] / count
            for each in subsets(modalities)}


def _best(bundle: Bundle, prediction: SubsetPredictions) -> tuple[str, ...]:
    return tuple(bundle.vocabulary.heads[head][p[0].argmax()]
                 for head, p in prediction.probabilities.items())
