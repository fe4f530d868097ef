"""`karmma compare` prints a table and writes it with its chart, or reports what is wrong."""

import json

from karmma_ros.bags import report
from karmma_ros.cli.compare import main
from karmma_ros.errors import InvalidSettingError
import pytest
from simulated_bags import simulated_run


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('compare')
    run = simulated_run(120, seed=1)
    for name in ('teacher', 'student'):
        report.write(out / name, [run], {'id': f'{name}@1'}, {})
    return out


def test_table_and_files(folder, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main([str(folder / 'teacher' / 'report.json'), str(folder / 'student'),
                 '--condition-b', 'V', '--resamples', '300', '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert '# student against teacher' in printed and '- B: student@1, V' in printed
    comparison = json.loads((out / 'comparison.json').read_text())
    assert comparison['resamples'] == 300 and comparison['b']['condition'] == 'V'
    assert '![differences' in (out / 'comparison.md').read_text()
    assert (out / 'comparison.svg').read_text().startswith('<svg')


def test_what_is_wrong_is_a_sentence(folder, tmp_path):
    with pytest.raises(InvalidSettingError, match='as recorded'):
        main([str(folder / 'teacher'), str(folder / 'student'), '--condition', 'X'])
    with pytest.raises(InvalidSettingError, match='a JSON file'):
        main([str(tmp_path / 'a.json'), str(folder / 'student')])
    file = tmp_path / 'file'
    file.write_text('')
    with pytest.raises(InvalidSettingError, match='--out .*a path that can be written to'):
        main([str(folder / 'teacher'), str(folder / 'student'), '--resamples', '100', '--out',
              str(file)])
