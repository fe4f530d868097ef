"""
Draw a network as it is built: `python docs/draw_model.py [PRESET FILE.svg ...]`.

Every number in the drawing is read off the network, on the meta device. Without arguments the
figures of docs/model.md are drawn.
"""

from __future__ import annotations

from pathlib import Path
import sys

from karmma_ros.clip import ClipSpec
from karmma_ros.evaluation.cost import setting
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.encoders import token_shape
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import preset
from karmma_ros.prediction import Vocabulary
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
import torch

IMAGES = Path(__file__).parent / 'images'
FIGURES = ('karmma_student', 'karmma_teacher')
SENSORS = {Modality.RGB: 'RGB video', Modality.FLOW: 'optical flow', Modality.AUDIO: 'audio',
           Modality.DETECTIONS: 'detections'}
COLOURS = {Modality.RGB: '#cfe0f3', Modality.FLOW: '#fbe0c3', Modality.AUDIO: '#d5ead2',
           Modality.DETECTIONS: '#ead7ea'}
GREY, WHITE = '#ececec', '#ffffff'
ROW = 11.5
"""Height of a modality's row."""


def draw(name: str, path: Path) -> None:
    """Draw one preset into an image file."""
    config = preset(name)
    spec, vocabulary = setting(name)
    with torch.device('meta'):
        network = build(config, spec, vocabulary)
    height = ROW * len(network.modalities)
    figure = Figure(figsize=(13.2, (height + 11) / 10))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 132), ylim=(-6, height + 5))
    axis.axis('off')
    counts = [
        _draw_modality(axis, height - ROW * (i + 0.5), m, network, config, spec)
        for i, m in enumerate(network.modalities)
    ]
    _draw_fusion(axis, height, counts, config, network)
    _draw_heads(axis, height / 2, config, vocabulary)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
    axis.text(1, height + 2.5, name, fontsize=12, weight='bold', va='center')
    axis.text(1, -3.5, _legend(network.fill_missing, trained), fontsize=8.5, va='center')
    style = {'svg.fonttype': 'none', 'svg.hashsalt': name}
    with matplotlib.rc_context(style):
        figure.savefig(path, dpi=130, facecolor='white',
                       metadata={'Date': None} if path.suffix == '.svg' else None)


def _draw_modality(
    axis: Axes, y: float, modality: Modality, network: Karmma, config: ModelConfig, spec: ClipSpec
) -> int:
    """Draw what happens to one modality, left to right; give its number of tokens."""
    shape, letter = spec.input_shape(modality), modality.letter
    encoder, colour = network.encoders[modality.value], COLOURS[modality]
    tokens, width = token_shape(encoder, shape)
    kept = min(tokens, config.token_cap)
    size = sum(p.numel() for p in encoder.parameters()) / 1e6
    frozen = ', frozen' if config.freeze_encoders else ''
    encoder_name = config.encoders[modality].name.rpartition(':')[2]
    added = f' + m$_{letter}$' if network.fill_missing else ''
    _box(axis, 9, y, 16, f'{letter}  {SENSORS[modality]}\n{" × ".join(map(str, shape))}', WHITE)
    _box(axis, 29.5, y, 17, f'{encoder_name}\n{size:.2f} M{frozen}', colour)
    _box(axis, 49, y, 14, f'τ-Average\n{tokens} → {kept}', colour)
    _box(axis, 69.5, y, 19, f'Linear {width} → {config.dim}{added}', colour)
    if network.fill_missing:
        axis.text(69.5, y - 4.7, f'absent:  a$_{{{letter},j}}$ + m$_{letter}$', ha='center',
                  va='center', fontsize=8, style='italic')
    for left, right in ((17, 21), (38, 42), (56, 60), (79, 83)):
        _arrow(axis, left, right, y)
    return kept


def _draw_fusion(
    axis: Axes, height: float, counts: list[int], config: ModelConfig, network: Karmma
) -> None:
    layers = f'{config.layers} layer{"s" if config.layers > 1 else ""}'
    text = (f'Fusion block\n\n{" + ".join(map(str, counts))}\ntokens and [CLS]\n\n{layers}\n'
            f'd = {config.dim}\n{config.heads} heads\nfeed-forward {config.feedforward}')
    _box(axis, 91, height / 2, 16, text, GREY, height - 3)
    means = '\n'.join(f'mean {m.letter}' for m in network.modalities)
    _box(axis, 106.5, height / 2, 9, f'{means}\n[CLS]', WHITE, 2.6 * len(counts) + 4)
    _arrow(axis, 99, 102, height / 2)


def _draw_heads(axis: Axes, y: float, config: ModelConfig, vocabulary: Vocabulary) -> None:
    sizes = vocabulary.sizes
    heads = '\n'.join(f'{head}: {2 * config.dim} → {n}' for head, n in sizes.items())
    text = (f'Multi-head MLP\n\nLinear {config.dim} → {2 * config.dim}, GELU\n'
            f'averaged over the tokens\n{heads}')
    _box(axis, 122, y, 19, text, GREY, 4 * len(sizes) + 13)
    _arrow(axis, 111, 112.5, y)


def _legend(filled: bool, millions: float) -> str:
    absent = ('An absent modality is not encoded: its learned tokens enter the fusion block.'
              if filled else 'An absent modality is not encoded and has no tokens.')
    return f'{millions:.3f} M parameters are trained. {absent}'


def _box(axis: Axes, x: float, y: float, width: float, text: str, colour: str,
         height: float = 6.6) -> None:
    axis.add_patch(FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle='round,pad=0,rounding_size=0.8',
        facecolor=colour, edgecolor='#444444', linewidth=0.9))
    axis.text(x, y, text, ha='center', va='center', fontsize=9, linespacing=1.35)


def _arrow(axis: Axes, left: float, right: float, y: float) -> None:
    axis.add_patch(FancyArrowPatch((left, y), (right, y), arrowstyle='-|>', mutation_scale=9,
                                   shrinkA=0, shrinkB=0, color='#444444', linewidth=0.9))


if __name__ == '__main__':
    words = sys.argv[1:] or [w for p in FIGURES for w in (p, str(IMAGES / f'{p}.svg'))]
    for preset_name, file in zip(words[::2], words[1::2], strict=True):
        draw(preset_name, Path(file))
