"""
Text as masks: how strongly each pixel of a line is covered, to be blended into a picture.

A TrueType font where Pillow and the font are installed, else OpenCV's own strokes. Characters
that a font lacks are written by their nearest ASCII letters, or as a question mark.

Shape legend: h height, w width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any
import unicodedata

import cv2
from karmma_ros.errors import InvalidSettingError
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]

_DEFAULT, _DEFAULT_BOLD = 'DejaVuSans.ttf', 'DejaVuSans-Bold.ttf'
# Letters that are not a letter with an accent, and the signs that occur in our own sentences.
_PLAIN = str.maketrans({
    'ß': 'ss', 'æ': 'ae', 'Æ': 'AE', 'œ': 'oe', 'Œ': 'OE', 'ø': 'o', 'Ø': 'O', 'ł': 'l',
    'Ł': 'L', 'đ': 'd', 'Đ': 'D', 'ı': 'i', 'þ': 'th', 'Þ': 'Th', '–': '-', '—': '-', '×': 'x',
    '…': '...', '‘': "'", '’': "'", '“': '"', '”': '"', '·': '.',
})
_ASCENT, _DESCENT = 0.95, 0.25
"""Of a line above and below its base line, in sizes."""

_LONGEST = 500
"""Characters of a text that are drawn at most: more fit into no frame."""


def plain(text: str) -> str:
    """Write text in ASCII: accents are dropped, and what has no Latin letter becomes `?`."""
    marked = unicodedata.normalize('NFKD', text.translate(_PLAIN))
    letters = (c for c in marked if not unicodedata.combining(c))
    return ''.join(c if ' ' <= c <= '~' else '?' for c in letters)


class TextRenderer(ABC):
    """One way to write; a size is that of the font in pixels, as in a browser."""

    def __init__(self) -> None:
        self._cached = lru_cache(maxsize=256)(self._write)

    def mask(self, text: str, size: int, bold: bool = False) -> Mask:
        """Write one line, `[h, w]` of 0 to 255, whose height depends on the size alone."""
        return self._cached(self.readable(text), max(int(size), 1), bold)

    def width(self, text: str, size: int, bold: bool = False) -> int:
        """Return the width of the line in pixels."""
        return int(self.mask(text, size, bold).shape[1])

    def fit(self, text: str, size: int, width: int, bold: bool = False) -> Mask:
        """Write as much of the line as `width` has room for, ending in an ellipsis if cut."""
        text = self.readable(text)
        whole = self.mask(text, size, bold)
        if whole.shape[1] <= width:
            return whole
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.width(text[:middle].rstrip() + '…', size, bold) <= width
            low, high = (middle, high) if fits else (low, middle - 1)
        return self.mask(text[:low].rstrip() + '…', size, bold)[:, :max(width, 0)]

    def readable(self, text: str) -> str:
        """Replace what cannot be written; line breaks become spaces."""
        return ''.join(c if self._has(c) else plain(c) for c in ' '.join(text[:_LONGEST].split()))

    @abstractmethod
    def _has(self, character: str) -> bool:
        """Return whether a single character can be written."""

    @abstractmethod
    def _write(self, text: str, size: int, bold: bool) -> Mask:
        """Write one line of characters that can be written."""


class Strokes(TextRenderer):
    """OpenCV's Hershey strokes, drawn large and averaged: smooth, and always there."""

    _FINER = 4
    _CAPITAL = 21
    """Height of a capital at scale 1."""

    def _has(self, character: str) -> bool:
        return ' ' <= character <= '~'

    def _write(self, text: str, size: int, bold: bool) -> Mask:
        fine = size * self._FINER
        scale = 0.7 * fine / self._CAPITAL
        stroke = max(1, round(fine * (0.12 if bold else 0.08)))
        # These fonts have wide spaces: the words are written one by one.
        font, space, x = cv2.FONT_HERSHEY_SIMPLEX, round(0.3 * fine), stroke
        places = []
        for word in text.split(' '):
            places.append((word, x))
            x += cv2.getTextSize(word, font, scale, stroke)[0][0] + space
        width = -(-(x - space + stroke) // self._FINER) * self._FINER
        canvas = np.zeros((_line_height(size) * self._FINER, max(width, self._FINER)), np.uint8)
        for word, x in places:
            cv2.putText(canvas, word, (x, round(_ASCENT * fine)), font, scale, 255, stroke,
                        cv2.LINE_AA)
        small = canvas.shape[1] // self._FINER, canvas.shape[0] // self._FINER
        return np.asarray(cv2.resize(canvas, small, interpolation=cv2.INTER_AREA), np.uint8)


class TrueType(TextRenderer):
    """A TrueType or OpenType font, by Pillow."""

    def __init__(self, regular: str, bold: str) -> None:
        """
        Take the files of two weights, as paths or as names of installed fonts.

        :raises OSError: when one cannot be read.
        :raises ImportError: without Pillow.
        """
        from PIL import Image, ImageDraw, ImageFont

        super().__init__()
        self._image, self._draw = Image, ImageDraw
        self._load = lru_cache(maxsize=64)(
            lambda size, heavy: ImageFont.truetype(bold if heavy else regular, size))
        self._absent = [_pixels(self._load(20, heavy), '\U0010fffe') for heavy in (False, True)]
        self._known: dict[str, bool] = {' ': True}

    def _has(self, character: str) -> bool:
        if character not in self._known:
            # A font draws all that it lacks in one and the same way.
            self._known[character] = character.isprintable() and all(
                _pixels(self._load(20, heavy), character) != self._absent[heavy]
                for heavy in (False, True))
        return self._known[character]

    def _write(self, text: str, size: int, bold: bool) -> Mask:
        font = self._load(size, bold)
        left, _, right, _ = font.getbbox(text, anchor='ls')
        canvas = self._image.new('L', (max(int(right - min(left, 0)), 1), _line_height(size)))
        place = -min(left, 0), round(_ASCENT * size)
        self._draw.Draw(canvas).text(place, text, fill=255, font=font, anchor='ls')
        return np.array(canvas, np.uint8)


def _pixels(font: Any, character: str) -> tuple[Any, bytes]:
    mask = font.getmask(character, mode='L')
    return mask.size, bytes(mask)


def _line_height(size: int) -> int:
    return round((_ASCENT + _DESCENT) * size)


def choose_text_renderer(font: str = '') -> TextRenderer:
    """
    Return the font asked for; an empty name takes DejaVu Sans, or strokes where that is not.

    :raises InvalidSettingError: for a font that cannot be read.
    """
    try:
        return TrueType(font, font) if font else TrueType(_DEFAULT, _DEFAULT_BOLD)
    except (ImportError, OSError) as problem:
        if not font:
            return Strokes()
        raise InvalidSettingError(
            'font', font, 'a TrueType file, as a path or as the name of an installed font',
            f'{problem}; without Pillow (python3-pil) leave it empty') from None
