"""
What is known, drawn on a picture.

Lamps at the top tell by shape, colour and words which sensors the answer rests on; a panel at
the bottom has verbs and nouns with their scores. Everything scales with the picture and stays
inside it.

Shape legend: h height, w width.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
from karmma_ros.overlay.lettering import Mask, TextRenderer
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
"""Red, green, blue."""


class Indicator(Enum):
    """How one sensor stands to the answer."""

    USED = 'used'
    UNUSED = 'available, but not used'
    OUT = 'nothing usable of late'
    INVALID = 'unreadable'
    DISABLED = 'switched off'


@dataclass(frozen=True)
class SensorIndicator:
    """One lamp."""

    letter: str
    lamp: Indicator
    reason: str = ''
    """Why it is out, in words; empty for none."""


@dataclass(frozen=True)
class Label:
    """A class and its score."""

    name: str
    score: float


@dataclass(frozen=True)
class View:
    """All that is drawn on one picture."""

    sensors: tuple[SensorIndicator, ...] = ()
    labels: tuple[tuple[Label, ...], ...] = ()
    """For each head, verb first, the best classes, best first; empty when there is no answer."""
    notice: str = ''
    """Why there is no answer."""
    age_s: float | None = None
    """Of the newest sample that the answer rests on; None when it is not known."""
    running: str = ''
    """The action under way."""
    running_s: float = 0.0
    warning: str = ''
    """What is wrong with the picture; it is drawn darker then."""


# Okabe and Ito's colours, which differ for every kind of colour vision; the shapes differ too.
_COLOURS: dict[Indicator, Colour] = {
    Indicator.USED: (0, 158, 115),
    Indicator.UNUSED: (86, 180, 233),
    Indicator.OUT: (240, 180, 0),
    Indicator.INVALID: (224, 96, 16),
    Indicator.DISABLED: (150, 150, 150),
}
_WHITE, _SOFT, _DARK = (255, 255, 255), (200, 206, 212), (16, 18, 22)
_BARS: Colour = (86, 180, 233)
_REFERENCE = 640, 480
"""Width and height of the picture that the sizes below are meant for."""
_SMALLEST = 0.3
_HIGHEST = 2
"""Height of an enlarged picture, in its smallest widths."""
_PANEL_OPACITY, _PILL_OPACITY, _DIMMED = 0.76, 0.76, 0.5
_SUBPIXEL = 4
"""Bits of OpenCV's coordinates behind the point."""


def draw(image: Image, view: View, lettering: TextRenderer) -> Image:
    """Draw on a copy of an RGB picture uint8 `[h, w, 3]`."""
    canvas = _Canvas(image, lettering, dim=bool(view.warning))
    canvas.top(view)
    canvas.bottom(view)
    return canvas.pixels


def placeholder(size: tuple[int, int] = _REFERENCE) -> Image:
    """Return the picture, `size` is width and height, that stands where the camera gave none."""
    width, height = size
    picture = np.full((height, width, 3), 58, np.uint8)
    for offset in range(-height, width, 48):
        cv2.line(picture, (offset, height), (offset + height, 0), (66, 66, 66), 14, cv2.LINE_AA)
    return picture


def enlarge(image: Image, min_width: int) -> Image:
    """Enlarge a picture narrower than `min_width`, so that what is written can be read."""
    height, width = image.shape[:2]
    # A strip that is much higher than wide would become enormous.
    scale = min(min_width / width, _HIGHEST * min_width / height)
    if scale <= 1:
        return image
    size = round(width * scale), max(round(height * scale), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


class _Canvas:
    """A picture that is being drawn on, in units that scale with it."""

    def __init__(self, image: Image, lettering: TextRenderer, dim: bool) -> None:
        self.pixels = image.copy()
        if dim:
            cv2.convertScaleAbs(image, self.pixels, _DIMMED)
        self._letters = lettering
        self._height, self._width = image.shape[:2]
        scale = min(self._width / _REFERENCE[0], self._height / _REFERENCE[1])
        self._unit = max(scale, _SMALLEST)
        self._margin = self._px(12)

    def _px(self, size: float) -> int:
        """Return a size of the reference picture in pixels of this one."""
        return max(round(size * self._unit), 1)

    def top(self, view: View) -> None:
        """Draw the age at the right; the lamps and, below them, the reasons at the left."""
        x, y, side = self._margin, self._margin, self._px(30)
        room = self._width - self._margin
        if view.age_s is not None:
            room -= self._pill(_age(view.age_s), y, right=True) + self._margin
        for sensor in view.sensors:
            if x + side <= room:
                self._lamp(sensor, x, y, side)
                x += side + self._px(8)
        y += side + self._px(8)
        notes = [(view.warning, _COLOURS[Indicator.OUT])] if view.warning else []
        notes += [(s.reason, _COLOURS[s.lamp]) for s in view.sensors if s.reason]
        for text, colour in notes:
            self._pill(text, y, colour=colour)
            y += self._px(26)

    def bottom(self, view: View) -> None:
        """Draw the panel with the answer or the notice, and above it what is under way."""
        ranks = max((len(labels) for labels in view.labels), default=0)
        row, first = self._px(22), self._px(38)
        height = first + row * max(ranks - 1, 0) + self._px(16)
        if not view.labels:
            height = self._px(44)
        top = max(self._height - height, 0)
        self._shade(top)
        if view.running:
            text = f'{view.running} · {view.running_s:.1f} s'
            self._pill(text, top - self._px(34), colour=_COLOURS[Indicator.USED], dot=True)
        if not view.labels:
            self._write(view.notice, self._margin, top + self._px(12), 17,
                        self._width - 2 * self._margin, _WHITE)
            return
        gap = self._px(20)
        each = (self._width - 2 * self._margin - gap * (len(view.labels) - 1)) // len(view.labels)
        for i, labels in enumerate(view.labels):
            x, y = self._margin + i * (each + gap), top + self._px(8)
            for rank, label in enumerate(labels):
                self._label(label, x, y, each, best=rank == 0)
                y += row if rank else first

    def _label(self, label: Label, x: int, y: int, width: int, best: bool) -> None:
        """Draw a class, its score and a bar as long as it is likely."""
        size = 25 if best else 14
        colour = _WHITE if best else _SOFT
        score = self._letters.mask(f'{label.score:.2f}', self._px(15 if best else 13))
        named = max(width - score.shape[1] - self._px(8), 0)
        self._write(label.name, x, y, size, named, colour, bold=best)
        drop = round(0.95 * (self._px(size) - self._px(15 if best else 13)))
        self._blend(score, x + width - score.shape[1], y + drop, colour)
        bar_y, thick = y + self._px(31 if best else 18), self._px(4 if best else 2)
        self._bar(x, bar_y, width, thick, label.score, best)

    def _bar(self, x: int, y: int, width: int, thick: int, part: float, best: bool) -> None:
        """Draw a bar, of which `part` is filled."""
        filled = round(width * min(max(part, 0.0), 1.0)) if np.isfinite(part) else 0
        for length, colour, opacity in (
                (width, _SOFT, 0.25), (filled, _COLOURS[Indicator.USED] if best else _BARS, 1.0)):
            if length > 0:
                self._blend(np.full((thick, length), 255, np.uint8), x, y, colour, opacity)

    def _pill(
        self, text: str, y: int, *, colour: Colour = _WHITE, right: bool = False,
        dot: bool = False,
    ) -> int:
        """Draw a line of text on a dark ground of its own; give the width of the ground."""
        pad, size = self._px(9), self._px(14)
        head = self._px(16) if dot else 0
        mask = self._letters.fit(
            text, size, max(self._width - 2 * self._margin - 2 * pad - head, 1))
        width, height = mask.shape[1] + 2 * pad + head, self._px(22)
        x = self._width - self._margin - width if right else self._margin
        self._blend(_rounded(width, height, height / 2), x, y, _DARK, _PILL_OPACITY)
        if dot:
            side = self._px(10)
            self._blend(_rounded(side, side, side / 2), x + pad, y + (height - side) // 2, colour)
        self._blend(mask, x + pad + head, y + (height - mask.shape[0]) // 2,
                    _WHITE if dot else colour)
        return width

    def _lamp(self, sensor: SensorIndicator, x: int, y: int, side: int) -> None:
        """Draw one sensor: a shape for its state with its letter inside."""
        colour = _COLOURS[sensor.lamp]
        halo = self._px(3)
        ground = _rounded(side + 2 * halo, side + 2 * halo, (side + 2 * halo) / 4)
        self._blend(ground, x - halo, y - halo, _DARK, _PILL_OPACITY)
        self._blend(_shape(sensor.lamp, side), x, y, colour)
        filled = sensor.lamp in (Indicator.USED, Indicator.OUT, Indicator.INVALID)
        ink = _WHITE if sensor.lamp is Indicator.USED else _DARK if filled else colour
        size = max(round(side * (0.5 if sensor.lamp is Indicator.OUT else 0.6)), 1)
        letter = self._letters.mask(sensor.letter, size, bold=True)
        # The letters' own middle lies above that of their line; the triangle's lies lower.
        low = round(side * 0.14) if sensor.lamp is Indicator.OUT else 0
        self._blend(letter, x + (side - letter.shape[1]) // 2,
                    y + (side - letter.shape[0]) // 2 + low, ink)

    def _write(
        self, text: str, x: int, y: int, size: float, width: int, colour: Colour,
        bold: bool = False,
    ) -> None:
        self._blend(self._letters.fit(text, self._px(size), width, bold), x, y, colour)

    def _shade(self, top: int) -> None:
        """Darken everything below `top`, whatever lies there."""
        panel = self.pixels[top:]
        ground = np.full_like(panel, _DARK)
        cv2.addWeighted(panel, 1 - _PANEL_OPACITY, ground, _PANEL_OPACITY, 0, dst=panel)

    def _blend(self, mask: Mask, x: int, y: int, colour: Colour, opacity: float = 1.0) -> None:
        """Lay a colour over the picture where the mask says; what lies outside is left out."""
        top, left = max(y, 0), max(x, 0)
        mask = mask[top - y:max(self._height - y, 0), left - x:max(self._width - x, 0)]
        if not mask.size:
            return
        area = self.pixels[top:top + mask.shape[0], left:left + mask.shape[1]]
        cover = mask[..., None].astype(np.float32) * (opacity / 255)
        area[:] = (area + (np.array(colour, np.float32) - area) * cover + 0.5).astype(np.uint8)


def _age(seconds: float) -> str:
    return f'{seconds * 1e3:.0f} ms old' if seconds < 1 else f'{seconds:.1f} s old'


def _rounded(width: int, height: int, radius: float) -> Mask:
    """Draw a filled rectangle with round corners that fills a mask."""
    mask = np.zeros((height, width), np.uint8)
    radius = min(radius, (width - 1) / 2, (height - 1) / 2)
    if radius < 1:
        return np.full_like(mask, 255)
    corners = [(x, y) for y in (radius, height - 1 - radius) for x in (radius, width - 1 - radius)]
    for corner in corners:
        _disc(mask, corner, radius)
    inner = int(np.ceil(radius))
    mask[:, inner:width - inner] = 255
    mask[inner:height - inner] = 255
    return mask


def _shape(lamp: Indicator, side: int) -> Mask:
    """Draw a lamp: disc, ring, triangle, square, or a ring that is struck through."""
    mask, middle, edge = np.zeros((side, side), np.uint8), (side - 1) / 2, max(side // 12, 1)
    if lamp is Indicator.INVALID:
        return _rounded(side, side, side / 6)
    if lamp is Indicator.OUT:
        low = side * 11 / 12 - 1
        corners = _fixed((middle, 0.0), (side - 1.0, low), (0.0, low))
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, _SUBPIXEL)
        return mask
    _disc(mask, (middle, middle), middle)
    if lamp is not Indicator.USED and side > 2 * edge:
        _disc(mask, (middle, middle), middle - edge, 0)
    if lamp is Indicator.DISABLED:
        reach = middle * 0.7
        ends = _fixed((middle - reach, middle + reach), (middle + reach, middle - reach))
        cv2.line(mask, ends[0].tolist(), ends[1].tolist(), 255, edge, cv2.LINE_AA, _SUBPIXEL)
    return mask


def _disc(mask: Mask, centre: tuple[float, float], radius: float, value: int = 255) -> None:
    (point,), scale = _fixed(centre), 1 << _SUBPIXEL
    cv2.circle(mask, point.tolist(), max(round(radius * scale), 0), value, -1, cv2.LINE_AA,
               _SUBPIXEL)


def _fixed(*points: tuple[float, float]) -> NDArray[np.int32]:
    """Return points in OpenCV's coordinates with bits behind the point."""
    return np.asarray(np.round(np.array(points) * (1 << _SUBPIXEL)), np.int32)
