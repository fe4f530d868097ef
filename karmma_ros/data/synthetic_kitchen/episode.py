"""One stretch of cooking, open at its end: everything a robot's sensors would deliver."""

from __future__ import annotations

from karmma_ros.data.synthetic_kitchen.audio import Mix, Soundtrack
from karmma_ros.data.synthetic_kitchen.backdrop import Backdrop
from karmma_ros.data.synthetic_kitchen.boxes import detect, Detector
from karmma_ros.data.synthetic_kitchen.hands import Cook
from karmma_ros.data.synthetic_kitchen.instances import instance, POOL
from karmma_ros.data.synthetic_kitchen.motion import Hands, Motion
from karmma_ros.data.synthetic_kitchen.scene import Head, Light, Scene
from karmma_ros.data.synthetic_kitchen.seeds import generator, Stream
from karmma_ros.data.synthetic_kitchen.vocabulary import action_of, NOUNS, Split, VERBS
import numpy as np


class Episode:
    """
    One verb done to one object, for as long as one looks.

    A function of split, seed, index, verb and noun, and of time: what is asked for, in which
    order and how often changes nothing. Any two seconds of it show the action.
    """

    def __init__(self, split: Split, seed: int, index: int, verb: str, noun: str) -> None:
        self.split, self.seed, self.index, self.verb, self.noun = split, seed, index, verb, noun
        self.verb_id, self.noun_id = VERBS.index(verb), NOUNS.index(noun)
        rng = generator(Stream.EPISODE, seed, split.number, index, self.verb_id, self.noun_id)
        self.instance_number = int(rng.integers(POOL[split]))
        self.instance = instance(split, noun, self.instance_number)
        self._seed = int(rng.integers(2 ** 62))
        motion = Motion.draw(rng, verb, self.instance.temper)
        self._detector = Detector.draw(rng)
        self._motion = motion
        self._scene = Scene(motion, self.instance.look, Cook.draw(rng, verb), Head.draw(rng),
                            Light.draw(rng), Backdrop(self._seed), self._seed)
        self._sound = Soundtrack(verb, self.instance.timbre, motion.rhythm, Mix.draw(rng),
                                 self._seed)

    def frame(self, t_s: float, height: int, width: int) -> np.ndarray:
        """Draw the picture at `t_s` seconds: uint8 `[height, width, 3]`, red, green, blue."""
        return self._scene.frame(t_s, height, width)

    def audio(self, start_s: float, duration_s: float, sample_rate: int) -> np.ndarray:
        """
        Give the sound of `[start_s, start_s + duration_s)`: float32 `[n]` in -1..1, mono.

        :raises InvalidSettingError: for a start before 0 or a rate below 8 kHz.
        """
        return self._sound.render(start_s, duration_s, sample_rate)

    def boxes(self, t_s: float) -> np.ndarray:
        """
        Give what a detector reports at `t_s`: float32 `[n, 5]`, x1, y1, x2, y2, category.

        Coordinates in units of the size of a 4:3 picture, clipped to 0..1; hands first.
        """
        return detect(self._scene, self._detector, self._seed, t_s)

    def hands_at(self, t_s: float) -> Hands:
        """Give where object and hands truly are at `t_s`, in world units (see `motion`)."""
        return self._motion.at(t_s)

    def silhouettes(self, t_s: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """Give the true outlines of object and hands: points in units of the picture's size."""
        return self._scene.silhouettes(t_s)


def episode(split: Split, seed: int, index: int) -> Episode:
    """Give the episode behind the clip of that index in a balanced split."""
    verb, noun = action_of(split, seed, index)
    return Episode(split, seed, index, VERBS[verb], NOUNS[noun])
