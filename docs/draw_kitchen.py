"""
Draw a contact sheet of the data set and of its second domain, as in the documentation.

`python docs/draw_kitchen.py docs/images/synthetic_kitchen.jpg`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
from karmma_ros.data.synthetic_kitchen.episode import Episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, Split, VERBS
import numpy as np

COLUMNS, PAIRS = 5, 2
"""Of rows, one for each domain."""
HEIGHT, WIDTH = 180, 240
CAPTION = 22
"""Height of the line under each image, pixels."""


def contact_sheet(split: Split = Split.TEST, seed: int = 0, t_s: float = 1.0) -> np.ndarray:
    """
    Draw a frame of each of 20 episodes: uint8 `[h, w, 3]`; every word occurs.

    Each row of the kitchen is followed by the same verbs in the garage.
    """
    rows = [np.hstack([_tile(domain, split, seed, i, t_s) for i in range(first, first + COLUMNS)])
            for first in range(0, PAIRS * COLUMNS, COLUMNS) for domain in Domain]
    return np.vstack(rows)


def _tile(domain: Domain, split: Split, seed: int, index: int, t_s: float) -> np.ndarray:
    verb, noun = VERBS[index % len(VERBS)], domain.nouns[index * 3 % len(domain.nouns)]
    # Twice the size and back: what is small and smooth fits into a small file.
    frame = Episode(split, seed, index, verb, noun).frame(t_s, 2 * HEIGHT, 2 * WIDTH)
    tile = np.full((HEIGHT + CAPTION, WIDTH, 3), 255, np.uint8)
    tile[:HEIGHT] = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    cv2.putText(tile, f'{verb} {noun}', (6, HEIGHT + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5,
                (30, 30, 30), 1, cv2.LINE_AA)
    return tile


def main() -> None:
    """Write the sheet to the file named on the command line."""
    parser = argparse.ArgumentParser(description='Draw a contact sheet of the synthetic kitchen.')
    parser.add_argument('path', type=Path, help='image file to write (.jpg or .png)')
    path = parser.parse_args().path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), contact_sheet()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        parser.exit(1, f'{path} cannot be written\n')


if __name__ == '__main__':
    main()
