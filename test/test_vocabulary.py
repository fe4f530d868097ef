"""
The field's vocabulary: words that stand for a standard term are found, wherever users read them.

`python test/test_vocabulary.py [PATH ...]` lists every violation with the term to use instead.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ('karmma_ros', 'karmma_msgs', 'launch', 'config', 'docs', 'models', 'test',
            'benchmarks', 'docker', 'requirements', 'README.md', 'CONTRIBUTING.md',
            'CHANGELOG.rst')

NAMES = {
    'picture': 'frame (of a video), image (a still) or figure (of a report)',
    'film': 'video', 'sound': 'audio', 'stretch': 'chunk, segment or interval', 'thing': 'object',
    'kind': 'type, dtype, category or class', 'brush': 'canvas', 'lettering': 'text renderer',
    'lamp': 'indicator', 'look': 'tick, trigger, check or probe',
    'obey': 'drain', 'hindrance': 'reason', 'heard': 'received, valid mask or detected',
    'hear': 'receive or detect', 'woken': 'condition', 'forget': 'reset, clear or discard',
    'forgotten': 'generation', 'lane': 'simulated node or run index',
    'pace': 'rate statistics or settings', 'answer': 'prediction, output, logits or response',
    'ask': 'run inference, request or query', 'asker': 'inference', 'said': 'predicted',
    'say': 'report or log', 'tell': 'report, log or announce', 'told': 'reported',
    'teller': 'reporter', 'memo': 'cache', 'taught': 'distilled',
    'found': 'result, detections, matches (by meaning)',
    'losing': 'robustness or missing', 'lose': 'drop', 'lost': 'dropped or missing',
    'echo': 'recorded prediction', 'fleet': 'parallel', 'delivery': 'message',
    'arrival': 'message', 'arrived': 'received', 'intake': 'ingest', 'receipt': 'receive stats',
    'refusal': 'rejected message', 'cut': 'window, crop or extract',
    'moment': 'failure case or time',
    'made': 'provenance', 'portion': 'shard or chunk', 'share': 'fraction', 'course': 'settings',
    'workshop': 'runner', 'inventory': 'check or report', 'catalogue': 'registry',
    'keeper': 'checkpoint', 'news': 'status', 'audience': 'monitor', 'outlet': 'publisher',
    'mend': 'fix hint', 'place': 'index, position or path', 'whole': 'complete or total',
    'there': 'present', 'room': 'package', 'house': 'package',
}
"""Part of an identifier, singular → the term instead."""

PROSE = {
    r'pictures?': NAMES['picture'], r'films?': NAMES['film'], r'lamps?': NAMES['lamp'],
    r'sounds?': NAMES['sound'], r'stretch(?:es)?': NAMES['stretch'], r'things?': NAMES['thing'],
    r'answer(?:s|ed|ing)?': NAMES['answer'], r'ask(?:s|ed|ing)?': NAMES['ask'],
    r'look(?:s|ed|ing)?': NAMES['look'], r'hears?|heard': NAMES['heard'],
    r'say(?:s|ing)?|said': 'report, state or print', r'tell(?:s|ing)?|told': 'report or log',
    r'mend(?:s|ed|ing)?': 'fix', r'portions?': NAMES['portion'], r'rooms?': 'package',
    r'house': 'package', r'goes on|go on|going on': 'continue or resume',
    r'it may be': 'expected or must be', r'lettering': NAMES['lettering'],
    r'held against|holds? \w+ (?:\w+ )?against': 'check, compare or validate',
    r'obeys?': 'drain', r'hindrances?': 'reason', r'forg[eo]ts?(?:ten)?': NAMES['forget'],
    r'lanes?': NAMES['lane'], r'echo(?:es)?': NAMES['echo'], r'fleet': NAMES['fleet'],
    r'keepers?': NAMES['keeper'], r'audience': NAMES['audience'],
}
"""Expression in docstrings, texts and pages, case ignored → the term instead."""

ALLOWED_NAMES: dict[str, frozenset[str]] = {
    'synthetic_kitchen/motion': frozenset({'_cut'}),  # the verb
}
"""Identifiers that other software or a file format names: path expression → identifiers."""
ALLOWED_PROSE = re.compile(
    r'ros2 topic echo|test_\w+|look(?:s)? up|look-?up|soundfile|ultrasound|'
    r'A Closer Look at Spatiotemporal')


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of what a module names itself: definitions, parameters, variables."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield getattr(node, 'lineno', 0), node.asname


def words(name: str) -> Iterator[str]:
    """Yield the parts of an identifier, lower case, singular."""
    for part in re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+', name):
        part = part.lower()
        yield part
        if part.endswith('es'):
            yield part[:-2]
        if part.endswith('s'):
            yield part[:-1]


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string that is a sentence, docstrings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ' ' in node.value:
            for number, line in enumerate(node.value.split('\n')):
                yield node.lineno + number, line


def violations(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, word and term to use of every violation in a file."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py':
        for part in path.relative_to(ROOT).with_suffix('').parts:
            yield from ((1, part, NAMES[w]) for w in words(part) if w in NAMES)
        tree = ast.parse(text)
        for line, name in identifiers(tree):
            if any(re.search(pattern, path.as_posix()) and name in names
                   for pattern, names in ALLOWED_NAMES.items()):
                continue
            yield from ((line, name, NAMES[w]) for w in words(name) if w in NAMES)
        lines = [*texts(tree), *((n, line[line.index('#'):]) for n, line in enumerate(
            text.split('\n'), 1) if re.match(r'\s*#', line))]
    else:
        lines = list(enumerate(text.split('\n'), 1))
    for number, line in lines:
        line = ALLOWED_PROSE.sub('', line)
        for expression, term in PROSE.items():
            whole_word = rf'(?<![\w/.-])(?:{expression})(?![\w/-])'
            for hit in re.finditer(whole_word, line, re.IGNORECASE):
                yield number, hit.group(), term


def searched(paths: list[str]) -> list[Path]:
    """Return the tracked files below the paths that people read."""
    listed = subprocess.run(['git', 'ls-files', *paths], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split()
    return [ROOT / each for each in listed
            if each.endswith(('.py', '.md', '.rst', '.msg', '.yaml', '.jinja'))
            and ROOT / each != Path(__file__)]


def test_there_are_files_to_search():
    assert len(searched(list(SEARCHED))) > 400


@pytest.mark.parametrize('source, expected', [
    ('pictures = 1', 'pictures'), ('def f(found): pass', 'found'), ('class Asker: pass', 'Asker'),
    ('x = "the film is long"', 'film'), ('# it goes on', 'goes on'),
])
def test_a_planted_violation_is_found(tmp_path, monkeypatch, source, expected):
    monkeypatch.setattr(sys.modules[__name__], 'ROOT', tmp_path)
    path = tmp_path / 'module.py'
    path.write_text(source)
    assert expected in [word for _, word, _ in violations(path)]


def test_the_field_s_terms_are_used():
    listed = [f'{path.relative_to(ROOT)}:{line}: {word}: {term}'
              for path in searched(list(SEARCHED)) for line, word, term in violations(path)]
    assert not listed, f'{len(listed)} violations\n' + '\n'.join(listed[:50])


if __name__ == '__main__':
    for each in searched(sys.argv[1:] or list(SEARCHED)):
        for at, term_used, instead in violations(each):
            print(f'{each.relative_to(ROOT)}:{at}: {term_used}: {instead}')
