"""Every option of every command explains itself in words."""

from __future__ import annotations

import re
import subprocess
import sys

from karmma_ros.cli.bag import COMMANDS as BAG_COMMANDS
from karmma_ros.cli.main import COMMANDS, main
from karmma_ros.cli.model import COMMANDS as MODEL_COMMANDS
from karmma_ros.training.stages import STAGES
import pytest

PARTS = {
    'bag': [[name, '--help'] for name in BAG_COMMANDS],
    'data': [['check', '--help'], ['check', '--data.clip.help'], ['labels', '--help'],
             ['pack', '--help']],
    'model': [[name, '--help'] for name in MODEL_COMMANDS],
    'train': [*([stage, '--help'] for stage in STAGES), ['student', '--encoders.help']],
}
"""Command → what prints help besides its own `--help`."""
CALLS = [[name, *words] for name in COMMANDS if name != 'replay'
         for words in [['--help'], *PARTS.get(name, [])]]
NODES = ['karmma_ros.node', 'karmma_ros.node.demo', 'karmma_ros.node.player',
         'karmma_ros.node.watch', 'karmma_ros.overlay.node']
FACTS = re.compile(r'\((?:required|type:|default:).*\)|\[.*\]|`[^`]*`')
"""What is no explanation: type, default, examples."""


def entries(text: str) -> list[tuple[str, str]]:
    """Return (flags, help) of every option, positional and sub-command of a wide help text."""
    options: list[list[str]] = []
    section = ''
    for line in text.splitlines():
        if re.fullmatch(r'(?!usage:)\S.*:', line):
            section = line
        elif section and (match := re.fullmatch(
                r'  (?:  )?(-\S.*?|\S+)(?:  +(\S.*))?', line)) and (
                match[1].startswith('-') or section == 'positional arguments:' or match[2]):
            options.append([match[1], match[2] or ''])
        elif options and line.startswith(' ' * 10):
            options[-1][1] += f' {line.strip()}'
    return [(flags, text) for flags, text in options]


def unexplained(text: str) -> list[str]:
    """Return the flags of those without two words of their own."""
    return [flags for flags, words in entries(text) if not flags.startswith('{')
            and len(re.findall(r'[^\W\d_]{2,}', FACTS.sub('', words))) < 2]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Keep each help on one line."""
    monkeypatch.setenv('COLUMNS', '2000')


def help_of(capsys, words: list[str]) -> str:
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code
    assert status == 0
    return capsys.readouterr().out


@pytest.mark.parametrize('words', CALLS, ids=' '.join)
def test_every_option_explains_itself(capsys, words):
    text = help_of(capsys, words)
    assert entries(text) and unexplained(text) == []


@pytest.mark.parametrize('module', NODES)
def test_so_does_every_option_of_the_programs_that_need_ros(module):
    run = subprocess.run([sys.executable, '-m', module, '--help'], capture_output=True, text=True,
                         timeout=60)
    assert (run.returncode, run.stderr) == (0, '')
    assert entries(run.stdout) and unexplained(run.stdout) == []


def test_every_command_is_explained(capsys):
    listed = dict(line.split(maxsplit=1) for line in help_of(capsys, ['--help']).splitlines()
                  if line.startswith('  '))
    assert set(listed) == set(COMMANDS) and all(len(text.split()) > 1 for text in listed.values())


@pytest.mark.parametrize(('line', 'options'), [
    ('  --size SIZE  (type: int, default: 3)', ['--size SIZE']),
    ('  --size SIZE  [3]', ['--size SIZE']),
    ('  --size SIZE', ['--size SIZE']),
    ('  --size SIZE\n                  (required, type: tuple[int, int], default: (1, 2))',
     ['--size SIZE']),
    ('  --size SIZE  side of a frame (type: int, default: 3)', []),
])
def test_a_planted_option_is_judged(line, options):
    assert unexplained(f'usage: x [--size SIZE]\n\noptions:\n{line}\n') == options


def test_the_docstring_under_a_field_is_its_help(capsys):
    text = help_of(capsys, ['train', 'student', '--help'])
    shown = {flags: words.strip() for flags, words in entries(text)}
    assert shown['--run.batch_size BATCH_SIZE'].startswith(
        'Samples per optimizer step, over all devices'
    )
    assert shown['--data.epic_kitchens.root ROOT'].startswith('Folder that holds P01')
