"""
Draw which package of karmma_ros imports which, from the imports themselves.

`python docs/draw_architecture.py` writes docs/images/architecture.svg.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Set
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SHARED = 'shared types'
"""The modules directly in karmma_ros/; every package imports them, so no arrows are drawn."""
ROS = ('node', 'overlay')
ROWS = (('cli', 'node', 'overlay'), ('reproduce', 'labelling'), ('bags',),
        ('training', 'evaluation', 'cluster'), ('data', 'stream'), ('model',), ('modalities',),
        ('media',), ('preprocess',), (SHARED,))
"""Top to bottom: a package imports those below it."""
BOX = (1.5, 0.5)


def imports(package: Path) -> dict[str, set[str]]:
    """Return package → the packages that it imports, shared types apart."""
    packages = {path.name for path in package.iterdir() if (path / '__init__.py').is_file()}
    result: dict[str, set[str]] = {name: set() for name in packages}
    for name in packages:
        for path in (package / name).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                module = node.module if isinstance(node, ast.ImportFrom) else None
                parts = (module or '').split('.')
                if parts[0] == package.name and len(parts) > 1:
                    result[name] |= {parts[1]} & (packages - {name})
    return result


def without_implied(arrows: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """Return the imports that no chain of other imports implies."""
    def reached(name: str) -> set[str]:
        return set().union(*({each} | reached(each) for each in arrows[name]))

    return {name: {each for each in targets
                   if not any(each in reached(other) for other in set(targets) - {each})}
            for name, targets in arrows.items()}


def draw(arrows: Mapping[str, Set[str]], path: Path) -> None:
    """Draw the packages in rows and an arrow for each import given."""
    positions = {name: (2.4 * (i - (len(row) - 1) / 2), -1.25 * level)
              for level, row in enumerate(ROWS) for i, name in enumerate(row)}
    figure, axes = pyplot.subplots(figsize=(8, 7.1), layout='constrained')
    for name, targets in arrows.items():
        for target in targets:
            (x, y), (to_x, to_y) = positions[name], positions[target]
            same_row = y == to_y
            side = BOX[0] / 2 * (1 if to_x > x else -1) if same_row else 0.0
            axes.annotate(
                '', xytext=(x + side, y - (0 if same_row else BOX[1] / 2)),
                xy=(to_x - side, to_y + (0 if same_row else BOX[1] / 2)),
                arrowprops={'arrowstyle': '->', 'color': '#9aa5b1', 'linewidth': 1,
                            'connectionstyle': 'arc3,rad=0.06'})
    for name, (x, y) in positions.items():
        colour = '#dbeafe' if name in ROS else '#f1f5f9'
        axes.add_patch(pyplot.Rectangle(
            (x - BOX[0] / 2, y - BOX[1] / 2), *BOX, facecolor=colour, edgecolor='#475569'))
        axes.text(x, y, name, ha='center', va='center', family='monospace', fontsize=11)
    axes.set_xlim(-3.4, 3.4)
    axes.set_ylim(-1.25 * (len(ROWS) - 1) - 0.5, 0.5)
    axes.axis('off')
    pyplot.rcParams['svg.hashsalt'] = 'karmma_ros'
    figure.savefig(path, metadata={'Date': None})


if __name__ == '__main__':
    draw(without_implied(imports(ROOT / 'karmma_ros')),
         ROOT / 'docs' / 'images' / 'architecture.svg')
