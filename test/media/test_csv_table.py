"""CSV files in the dialects of spreadsheets give one table."""

import os

from karmma_ros.errors import DataError
from karmma_ros.media.csv_table import read_csv
import pytest

HEADER, ROWS = ['split', 'start', 'verb'], [(2, ['train', '0.5', 'cut']), (3, ['test', '1', ''])]


@pytest.mark.parametrize('content', [
    b'split,start,verb\ntrain,0.5,cut\ntest,1,\n',
    b'split;start;verb\r\ntrain;0.5;cut\r\ntest;1;\r\n',
    b'split\tstart\tverb\rtrain\t0.5\tcut\rtest\t1\t\r',
    b'\xef\xbb\xbfsplit, start, verb\ntrain, 0.5 ,cut\ntest,1,\n',
    'split\tstart\tverb\ntrain\t0.5\tcut\ntest\t1\t\n'.encode('utf-16'),
    b',split,start,verb\n0,train,0.5,cut\n1,test,1,\n',
    b'"";"split";"start";"verb"\n"1";"train";"0.5";"cut"\n"2";"test";"1";""\n',
    b'Unnamed: 0,split,start,verb\n0,train,0.5,cut\n1,test,1,\n',
    b'split;start;verb;;\ntrain;0.5;cut;;\ntest;1;;;\n;;;;\n\n',
])
def test_every_dialect_gives_the_same_table(tmp_path, content):
    path = tmp_path / 'table.csv'
    path.write_bytes(content)
    assert read_csv(path) == (HEADER, ROWS)


def test_a_stated_separator_is_used_and_lines_are_counted_with_it(tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text('sep=;\nsplit,start;verb\n"a\nb";cut\nc;d\n')
    assert read_csv(path) == (['split,start', 'verb'], [(4, ['a\nb', 'cut']), (5, ['c', 'd'])])


def test_what_is_no_table_is_named(tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text('')
    assert read_csv(path) == ([], [])
    path.write_text('a,b\n1,"never closed\n2,3\n')
    with pytest.raises(DataError, match=r'table.csv: it is no CSV file \(line 3: .*end of data'):
        read_csv(path)
    path.write_bytes('a,b\n1,schälen\n'.encode('latin-1'))
    with pytest.raises(DataError, match='no CSV file in UTF-8 .*: save it as CSV in UTF-8'):
        read_csv(path)


@pytest.mark.timeout(10)
def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'fifo.csv')
    for name in ('fifo.csv', '.'):
        with pytest.raises(DataError, match='it is a .*; expected a regular file'):
            read_csv(tmp_path / name)
