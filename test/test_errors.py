"""Texts from outside become one printable line of a bounded length, in errors as well."""

import pickle

from karmma_ros.bags.report.markdown import word
from karmma_ros.bags.report.page import environment
from karmma_ros.cli.progress import Bars
from karmma_ros.errors import (
    BagError,
    BundleError,
    DataError,
    InvalidSampleError,
    InvalidSettingError,
    KarmmaError,
    printable,
    SENTENCE_LENGTH,
)
from karmma_ros.evaluation.tables import escape_cell
from karmma_ros.prediction import Vocabulary
import pytest
from rich.text import Text

HOSTILE = ('\x1b[2J\x1b[31m\n[INFO] [1.0] [karmma]: all is well\r\0\t'
           '\x9b\u202e\u2066\u200e\u2028\ud800')
FILE_ERRORS = [DataError, BundleError, BagError]


@pytest.mark.parametrize(('text', 'shown'), [
    ('rgb8', 'rgb8'), ('', ''), ('Spüle öffnen, 洗う', 'Spüle öffnen, 洗う'),
    ('a\xa0b\u3000', 'a\xa0b\u3000'),
    ('\x1b[31m', '\\x1b[31m'), ('a\nb\r\t\0', 'a\\nb\\r\\t\\x00'), ('\x9b2J', '\\x9b2J'),
    ('\u202egnp.exe', '\\u202egnp.exe'), ('\u2066\u200f', '\\u2066\\u200f'),
    ('\u2028\u2029\x85', '\\u2028\\u2029\\x85'), ('\udce9\ud800', '\\udce9\\ud800'),
    ('\U000e0041', '\\U000e0041'), (7, '7'),
])
def test_what_could_change_a_terminal_becomes_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(printable(text)) == shown


@pytest.mark.parametrize(
    'text', ['A' * 3_000_000, '\x1b' * 3_000_000, '\U000e0041' * 60, 'é' * 101])
def test_a_long_text_is_shortened_with_the_count_of_what_is_missing(text):
    shown = printable(text, 100)
    kept = len(shown[:shown.index('…')].replace('\\x1b', '?').replace('\\U000e0041', '?'))
    assert 60 <= len(shown) <= 100
    assert shown.endswith(f'… ({len(text) - kept} characters left out)')
    assert printable(shown, 100) == shown


def test_a_text_as_long_as_the_limit_stays_as_it_is():
    assert printable('A' * 100, 100) == 'A' * 100


@pytest.mark.parametrize('error', [
    KarmmaError(HOSTILE), InvalidSampleError(f'image encoding: got {HOSTILE}'),
    InvalidSettingError(HOSTILE, HOSTILE, HOSTILE, HOSTILE),
    *(error_type(f'/tmp/{HOSTILE}', HOSTILE, HOSTILE) for error_type in FILE_ERRORS),
])
def test_every_error_is_one_printable_line(error):
    text = str(error)
    assert not set(text) & set(HOSTILE) - set(filter(str.isprintable, HOSTILE))
    assert '\\x1b[2J' in text and '\\n[INFO]' in text and '\\u202e' in text
    assert str(pickle.loads(pickle.dumps(error))) == text
    text.encode()


@pytest.mark.parametrize('error', [
    KarmmaError('A' * 3_000_000),
    InvalidSettingError('model', 'A' * 3_000_000, 'text', 'shorten it'),
    InvalidSettingError('model', ['A' * 10] * 200_000, 'text', 'shorten it'),
    *(error_type('a', 'B' * 3_000_000, 'shorten it') for error_type in FILE_ERRORS),
])
def test_every_error_is_short_and_keeps_its_remedy(error):
    assert len(str(error)) <= SENTENCE_LENGTH and 'characters left out)' in str(error)
    assert type(error) is KarmmaError or str(error).endswith(': shorten it')
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize('name', ['cut\n', '\x1b[31mcut', 'c\u202eut', 'c\ud800', 'A' * 501])
def test_a_class_name_that_could_change_a_terminal_is_refused(name):
    with pytest.raises(InvalidSettingError, match=r'classes\.verb is .*; expected printable'):
        Vocabulary({'verb': (name, 'stir')})
    assert Vocabulary({'verb': ('می\u200cشوید', 'Spüle öffnen')}).sizes == {'verb': 2}


def templated(text):
    """Write a text by a template."""
    return environment().from_string('{{ text }}').render(text=text)


@pytest.mark.parametrize('write', [word, templated, escape_cell])
def test_reports_show_escapes(write):
    shown = write(HOSTILE + '<b>[x](y)')
    assert shown.isprintable() and 'x1b' in shown and '<b>' not in shown


def test_names_are_no_markup_on_a_terminal():
    with Bars() as bars:
        bars('[red]\x1b[2J' + 'A' * 1000, 1, 2)
        description = bars.tasks[0].description
    shown = Text.from_markup(description).plain
    assert shown.startswith('[red]\\x1b[2JAAA') and len(shown) <= 80
