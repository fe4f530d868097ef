"""
Draw the node's status on an image, by Pillow.

Indicators at the top show by shape, colour and words which sensors a prediction rests on; a panel
at the bottom has verbs and nouns with their scores. Everything scales with the image and stays
inside it. Small shapes are drawn enlarged and reduced, since ImageDraw has no antialiasing.

Shape legend: h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from math import inf, isfinite
from typing import Any

import cv2
from karmma_ros.errors import InvalidSettingError
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
"""Red, green, blue."""


class Indicator(Enum):
    """How one sensor contributes to the prediction."""

    USED = 'used'
    UNUSED = 'available, but not used'
    OUT = 'no recent usable sample'
    INVALID = 'unreadable'
    UNINFORMATIVE = 'arriving, but shows nothing'
    DISABLED = 'switched off'


@dataclass(frozen=True)
class SensorIndicator:
    """The indicator of one sensor."""

    letter: str
    state: Indicator
    reason: str = ''
    """Why it is out, in words; empty for none."""
    contribution: float | None = None
    """Of the score, what is lost without this sensor, 0 to 1; None if it is not known."""


@dataclass(frozen=True)
class Label:
    """A class and its score."""

    name: str
    score: float


@dataclass(frozen=True)
class View:
    """All that is drawn on one image."""

    sensors: tuple[SensorIndicator, ...] = ()
    labels: tuple[tuple[Label, ...], ...] = ()
    """For each head, verb first, the best classes, best first; empty without a prediction."""
    notice: str = ''
    """Why there is no prediction."""
    age_s: float | None = None
    """Age of the newest sample that the prediction rests on; None when it is not known."""
    action: str = ''
    """The action in progress."""
    action_s: float = 0.0
    is_unknown: bool = False
    """Whether the labels are those of an unknown action."""
    warning: str = ''
    """What is wrong with the image; it is drawn darker then."""


# Okabe and Ito's colours, which differ for every type of colour vision; the shapes differ too.
_COLOURS: dict[Indicator, Colour] = {
    Indicator.USED: (0, 158, 115),
    Indicator.UNUSED: (86, 180, 233),
    Indicator.OUT: (240, 180, 0),
    Indicator.INVALID: (224, 96, 16),
    Indicator.UNINFORMATIVE: (0, 114, 178),
    Indicator.DISABLED: (150, 150, 150),
}
_WHITE, _SOFT, _DARK = (255, 255, 255), (200, 206, 212), (16, 18, 22)
_BARS: Colour = (86, 180, 233)
_REFERENCE = 640, 480
"""Width and height of the image that the sizes below are meant for."""
_SMALLEST = 0.3
_HIGHEST = 2
"""Height of an enlarged image, in its smallest widths."""
_OPACITY, _BAR_OPACITY, _DIMMED = 0.76, 0.25, 0.5
_SUPERSAMPLING = 4
_ASCENT, _DESCENT = 0.95, 0.25
"""Height of a line above and below its base line, in font sizes."""
_MAX_TEXT = 500
"""Characters of a text that are drawn at most: more fit into no image."""
_DEFAULT_FONTS = 'DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'


class Fonts:
    """Text as masks: a font in two weights, whose size is in pixels, as in a browser."""

    def __init__(self, load: Callable[[int, bool], Any]) -> None:
        """Take a function that loads the font of a size, regular or bold."""
        self._load = lru_cache(maxsize=64)(load)
        self.mask = lru_cache(maxsize=256)(self._mask)

    def _mask(
        self, text: str, size: int, width: float = inf, bold: bool = False,
    ) -> PilImage.Image:
        """Return one line, shortened to `width` pixels; its height depends on the size alone."""
        font = self._load(size, bold)
        text = _shorten(text, lambda line: font.getlength(line) <= width)
        left, _, right, _ = font.getbbox(text, anchor='ls')
        mask = PilImage.new('L', (int(min(right - min(left, 0), width)),
                                  round((_ASCENT + _DESCENT) * size)))
        ImageDraw.Draw(mask).text((-min(left, 0), round(_ASCENT * size)), text, 255, font, 'ls')
        return mask


def _shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Return as much of a text, in one line, as fits; it ends in an ellipsis if shortened."""
    text = ' '.join(text[:_MAX_TEXT].split())
    if fits(text):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle].rstrip() + '…') else (low, middle - 1)
    return text[:low].rstrip() + '…'


def load_fonts(name: str = '') -> Fonts:
    """
    Return the font of a name; without one DejaVu Sans, or Pillow's own where it is not installed.

    :param name: a TrueType file, as a path or as the name of an installed font.
    :raises InvalidSettingError: for a font that cannot be read.
    """
    regular, bold = (name, name) if name else _DEFAULT_FONTS
    fonts = Fonts(lambda size, heavy: ImageFont.truetype(bold if heavy else regular, size))
    try:
        fonts.mask('', 20), fonts.mask('', 20, bold=True)
    except OSError as problem:
        if name:
            raise InvalidSettingError(
                'font', name, 'a TrueType file, as a path or as the name of an installed font',
                str(problem)) from None
        return Fonts(lambda size, _: ImageFont.load_default(size))
    return fonts


def draw(image: Image, view: View, fonts: Fonts) -> Image:
    """Draw on a copy of an RGB image uint8 `[h, w, 3]`."""
    canvas = _Canvas(image, fonts, dim=bool(view.warning))
    canvas.top(view)
    canvas.bottom(view)
    return np.array(canvas.image, np.uint8)


def placeholder(size: tuple[int, int] = _REFERENCE) -> Image:
    """Return an image, `size` is width and height, to draw on when the camera has sent none."""
    width, height = size
    image = np.full((height, width, 3), 58, np.uint8)
    for offset in range(-height, width, 48):
        cv2.line(image, (offset, height), (offset + height, 0), (66, 66, 66), 14, cv2.LINE_AA)
    return image


def enlarge(image: Image, min_width: int) -> Image:
    """Enlarge an image narrower than `min_width`, so that text on it can be read."""
    height, width = image.shape[:2]
    # A strip that is much higher than wide would become enormous.
    scale = min(min_width / width, _HIGHEST * min_width / height)
    if scale <= 1:
        return image
    size = round(width * scale), max(round(height * scale), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


class _Canvas:
    """An image that is being drawn on, in units that scale with it."""

    def __init__(self, image: Image, fonts: Fonts, dim: bool) -> None:
        self._height, self._width = image.shape[:2]
        self.image = PilImage.fromarray(np.ascontiguousarray(image))
        if dim:
            self._blend((0, 0, self._width, self._height), (0, 0, 0), 1 - _DIMMED)
        self._fonts = fonts
        scale = min(self._width / _REFERENCE[0], self._height / _REFERENCE[1])
        self._unit = max(scale, _SMALLEST)
        self._margin = self._px(12)

    def _px(self, size: float) -> int:
        """Return a size of the reference image in pixels of this one."""
        return max(round(size * self._unit), 1)

    def top(self, view: View) -> None:
        """Draw the age at the right; the indicators and, below them, the reasons at the left."""
        x, y, side = self._margin, self._margin, self._px(30)
        right = self._width - self._margin
        if view.age_s is not None:
            right -= self._pill(_age(view.age_s), y, right=True) + self._margin
        for sensor in view.sensors:
            if x + side <= right:
                self._indicator(sensor, x, y, side)
                if sensor.contribution is not None:
                    top, height = y + side + self._px(5), self._px(4)
                    self._blend((x, top, x + side, top + height), _DARK, _OPACITY)
                    self._bar(x, top, side, height, sensor.contribution)
                x += side + self._px(8)
        y += side + self._px(8 if all(s.contribution is None for s in view.sensors) else 16)
        notes = [(view.warning, _COLOURS[Indicator.OUT])] if view.warning else []
        # The colour of the one is too dark for text.
        texts = {**_COLOURS, Indicator.UNINFORMATIVE: _COLOURS[Indicator.UNUSED]}
        notes += [(s.reason, texts[s.state]) for s in view.sensors if s.reason]
        for text, colour in notes:
            self._pill(text, y, colour=colour)
            y += self._px(26)

    def bottom(self, view: View) -> None:
        """Draw the panel with the prediction or the notice, above it the action in progress."""
        ranks = max((len(labels) for labels in view.labels), default=0)
        row, first = self._px(22), self._px(38)
        height = first + row * max(ranks - 1, 0) + self._px(16)
        if not view.labels:
            height = self._px(44)
        top = max(self._height - height, 0)
        self._blend((0, top, self._width, self._height), _DARK, _OPACITY)
        y = top - self._px(34)
        if view.action:
            text = f'{view.action} · {view.action_s:.1f} s'
            self._pill(text, y, colour=_COLOURS[Indicator.USED], dot=True)
            y -= self._px(26)
        if view.is_unknown:
            self._pill('unknown action', y, colour=_COLOURS[Indicator.OUT])
        if not view.labels:
            notice = self._fonts.mask(
                view.notice, self._px(17), max(self._width - 2 * self._margin, 0))
            self._paste(notice, self._margin, top + self._px(12), _WHITE)
            return
        gap = self._px(20)
        inner = max(self._width - 2 * self._margin - gap * (len(view.labels) - 1), 0)
        each = inner // len(view.labels)
        for i, labels in enumerate(view.labels):
            x, y = self._margin + i * (each + gap), top + self._px(8)
            for rank, label in enumerate(labels):
                self._label(label, x, y, each, best=rank == 0)
                y += row if rank else first

    def _label(self, label: Label, x: int, y: int, width: int, best: bool) -> None:
        """Draw a class, its score and a bar as long as it is likely."""
        size, score_size = (25, 15) if best else (14, 13)
        colour = _WHITE if best else _SOFT
        score = self._fonts.mask(f'{label.score:.2f}', self._px(score_size))
        drop = round(_ASCENT * (self._px(size) - self._px(score_size)))
        self._paste(score, x + width - score.width, y + drop, colour)
        name = self._fonts.mask(
            label.name, self._px(size), max(width - score.width - self._px(8), 0), best)
        self._paste(name, x, y, colour)
        self._bar(x, y + self._px(31 if best else 18), width, self._px(4 if best else 2),
                  label.score, _COLOURS[Indicator.USED] if best else _BARS)

    def _bar(
        self, x: int, y: int, width: int, height: int, part: float, colour: Colour = _WHITE,
    ) -> None:
        """Draw a bar that is filled in part, 0 to 1."""
        filled = round(width * min(max(part, 0.0), 1.0)) if isfinite(part) else 0
        self._blend((x, y, x + width, y + height), _SOFT, _BAR_OPACITY)
        self.image.paste(colour, (x, y, x + filled, y + height))

    def _pill(
        self, text: str, y: int, *, colour: Colour = _WHITE, right: bool = False,
        dot: bool = False,
    ) -> int:
        """Draw a line of text on a dark background of its own; return its width."""
        pad, size = self._px(9), self._px(14)
        head = self._px(16) if dot else 0
        inner = max(self._width - 2 * self._margin - 2 * pad - head, 0)
        line = self._fonts.mask(text, size, inner)
        width, height = line.width + 2 * pad + head, self._px(22)
        x = self._width - self._margin - width if right else self._margin
        self._paste(_rounded(width, height, height / 2, _OPACITY), x, y, _DARK)
        if dot:
            side = self._px(10)
            self._paste(_rounded(side, side, side / 2), x + pad, y + (height - side) // 2, colour)
        self._paste(line, x + pad + head, y + (height - line.height) // 2,
                    _WHITE if dot else colour)
        return width

    def _indicator(self, sensor: SensorIndicator, x: int, y: int, side: int) -> None:
        """Draw one sensor: a shape for its state with its letter inside."""
        colour, halo = _COLOURS[sensor.state], self._px(3)
        ground = side + 2 * halo
        self._paste(_rounded(ground, ground, ground / 4, _OPACITY), x - halo, y - halo, _DARK)
        self._paste(_shape(sensor.state, side), x, y, colour)
        filled = sensor.state not in (Indicator.UNUSED, Indicator.DISABLED)
        light = sensor.state in (Indicator.USED, Indicator.UNINFORMATIVE)
        ink = _WHITE if light else _DARK if filled else colour
        triangle = sensor.state is Indicator.OUT
        size = max(round(side * (0.5 if triangle else 0.6)), 1)
        letter = self._fonts.mask(sensor.letter, size, bold=True)
        if letter.width > 0.8 * side:  # two characters
            size = max(round(size * 0.8 * side / letter.width), 1)
            letter = self._fonts.mask(sensor.letter, size, bold=True)
        # The centre of capitals lies above that of their line; a triangle's lies lower.
        low = round(side * 0.14) if triangle else 0
        self._paste(letter, x + (side - letter.width) // 2,
                    y + (side - letter.height) // 2 + low, ink)

    def _paste(self, mask: PilImage.Image, x: int, y: int, colour: Colour) -> None:
        """Lay a colour over the image where the mask is set."""
        self.image.paste(colour, (x, y), mask)

    def _blend(self, box: tuple[int, int, int, int], colour: Colour, opacity: float) -> None:
        """Lay a colour over a rectangle."""
        area = self.image.crop(box)
        paint = PilImage.new('RGB', area.size, colour)
        self.image.paste(PilImage.blend(area, paint, opacity), box)


def _age(seconds: float) -> str:
    return f'{seconds * 1e3:.0f} ms old' if seconds < 1 else f'{seconds:.1f} s old'


@lru_cache(maxsize=64)
def _rounded(width: int, height: int, radius: float, opacity: float = 1.0) -> PilImage.Image:
    """Return the mask of a filled rectangle with rounded corners."""
    scale = _SUPERSAMPLING
    mask = PilImage.new('L', (width * scale, height * scale))
    box = 0, 0, width * scale - 1, height * scale - 1
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * scale, round(255 * opacity))
    return mask.reduce(scale)


@lru_cache(maxsize=64)
def _shape(state: Indicator, side: int) -> PilImage.Image:
    """Return the mask of an indicator: disc, ring, triangle, square, diamond, struck out ring."""
    size, edge = side * _SUPERSAMPLING, max(side // 12, 1) * _SUPERSAMPLING
    mask, last = PilImage.new('L', (size, size)), size - 1
    pen, box = ImageDraw.Draw(mask), (0, 0, last, last)
    if state is Indicator.INVALID:
        pen.rounded_rectangle(box, size / 6, 255)
    elif state is Indicator.UNINFORMATIVE:
        pen.polygon([(last / 2, 0), (last, last / 2), (last / 2, last), (0, last / 2)], 255)
    elif state is Indicator.OUT:
        low = size * 11 / 12
        pen.polygon([(last / 2, 0), (last, low), (0, low)], 255)
    elif state is Indicator.USED:
        pen.ellipse(box, 255)
    else:
        pen.ellipse(box, outline=255, width=edge)
    if state is Indicator.DISABLED:
        near, far = last * 0.15, last * 0.85
        pen.line([(near, far), (far, near)], 255, round(1.3 * edge))
    return mask.reduce(_SUPERSAMPLING)
