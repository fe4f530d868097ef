"""
The pages with measured tables.

A table lies between `<!-- bench: NAME -->` and `<!-- end -->`; the rest is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import re
import shutil

from figures import Results
import peers_page
import performance_page
import streaming_page
import targets

FIGURES = Path('benchmarks', 'results.json')
_MARKERS = re.compile(r'(<!-- bench: (?P<name>\w+) -->\n).*?(<!-- end -->)', re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table made from the figures of some parts."""

    parts: tuple[str, ...]
    make: Callable[[Results], str]


@dataclass(frozen=True)
class Page:
    """A page with tables, and its chart."""

    path: Path
    tables: Mapping[str, Table]
    chart: Path
    drawn_from: tuple[str, ...]
    draw: Callable[[Results, Path], None]

    def written(self, text: str, results: Results) -> str:
        """
        Return the text with the tables of what was measured; the others stay as they are.

        :raises ValueError: when it has markers that no table is for, or lacks some.
        """
        markers = [match['name'] for match in _MARKERS.finditer(text)]
        if sorted(markers) != sorted(self.tables):
            raise ValueError(
                f'{self.path}: has markers for {", ".join(markers) or "nothing"}; one is due for '
                f'each of {", ".join(self.tables)}: `<!-- bench: NAME -->` and `<!-- end -->`')

        def fill(match: re.Match[str]) -> str:
            table = self.tables[match['name']]
            if not set(table.parts) <= set(results):
                return match[0]
            return f'{match[1]}{table.make(results)}\n{match[3]}'
        return _MARKERS.sub(fill, text)

    def write(self, results: Results, out: Path, root: Path) -> None:
        """Write page and chart below `out`; a page that is not there starts as that of `root`."""
        path = out / self.path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / self.path, path)
        path.write_text(self.written(path.read_text(encoding='utf-8'), results), encoding='utf-8')
        if set(self.drawn_from) <= set(results):
            self.draw(results, out / self.chart)


PAGES = (
    Page(performance_page.PAGE, {
        'targets': Table(('node', 'memory', 'student', 'streaming', 'causal', 'trained',
                          'backends', 'gpu'), targets.targets),
        'node': Table(('node',), performance_page.node),
        'stages': Table(('live_path',), performance_page.stages),
        'growth': Table(('live_path',), performance_page.growth),
        'memory': Table(('memory',), performance_page.memory),
        'student': Table(('student',), performance_page.student),
        'backends': Table(('backends',), performance_page.backends),
        'gpu': Table(('gpu',), performance_page.gpu),
    }, performance_page.CHART, ('live_path', 'node'), performance_page.draw),
    Page(streaming_page.PAGE, {
        'recognised': Table(('streaming', 'trained'), streaming_page.recognised),
        'video': Table(('streaming', 'trained'), streaming_page.recognised_in_a_video),
        'taken': Table(('streaming', 'trained'), streaming_page.taken),
        'causal': Table(('causal', 'trained'), partial(streaming_page.taken, part='causal')),
    }, streaming_page.CHART, ('streaming', 'trained'), streaming_page.draw),
    Page(peers_page.PAGE, {'peers': Table(('peers',), peers_page.peers)}, peers_page.CHART,
         ('peers',), peers_page.draw),
)
