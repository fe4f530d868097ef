"""
What trained students recognise in a film of one action after the other, window by window.

A clip of the test split has nothing before it; a window of a film does, and an encoder that
remembers has seen it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.cli.main import main as karmma
from karmma_ros.evaluation.inference import BatchInference, inference_for, SubsetPredictions
from karmma_ros.modality import subset_name, subsets
from karmma_ros.model.bundle import Bundle
from karmma_ros.stream.settings import node_parameters

EPISODES, EPISODE_S = 160, 4
"""Held-out actions in a row, and the seconds of each."""


def film(path: Path) -> Path:
    """Return the bag of a film, made if it is not there."""
    if not path.exists():
        karmma(['bag', 'synthetic', str(path), '--episodes', str(EPISODES), '--seconds',
                str(EPISODE_S)])
    return path


def recognised(path: Path, bundle: Bundle, hop: int, anew: bool = False) -> dict[str, float]:
    """
    Return subset → windows whose action is right, percent, of those that show one action alone.

    :param hop: frames from one window to the next.
    :param anew: ask about each window as if nothing had been before.
    """
    asker = BatchInference(bundle) if anew else inference_for(bundle)
    modalities = bundle.network.modalities
    answered = []
    with Bag(path) as bag:
        replay = Replay(bag, choose_topics(bag, {}, modalities), bundle.spec, modalities,
                        node_parameters(), [Run()], hop=hop)
        for cut in replay.cuts():
            prepared = asker.prepare(0, cut.window)
            if prepared.modalities == modalities:
                said = asker([prepared], [subsets(modalities)])
                answered.append((cut.window.start_ns, cut.window.end_ns, said))
    right: Counter[str] = Counter()
    count = 0
    for start_ns, end_ns, said in answered:
        action = next(((verb, noun) for begun_ns, ended_ns, verb, noun in replay.truths
                       if begun_ns <= start_ns and end_ns <= ended_ns), None)
        count += action is not None
        for subset, answer in said.items():
            right[subset_name(subset)] += _best(bundle, answer) == action
    return {subset_name(each): 100 * right[subset_name(each)] / count
            for each in subsets(modalities)}


def _best(bundle: Bundle, answer: SubsetPredictions) -> tuple[str, ...]:
    return tuple(bundle.vocabulary.heads[head][p[0].argmax()]
                 for head, p in answer.probabilities.items())
