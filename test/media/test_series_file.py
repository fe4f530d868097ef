"""Time series: what an interval gives, and which files are refused and how."""

from dataclasses import replace
import os

from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media import series_file
from karmma_ros.media.series_file import open_series, SeriesFile
from karmma_ros.media.sources import SourceOptions, SourceSettings
import numpy as np
import pytest

RATE = 50.0


def ramp(seconds=4.0, rate=RATE):
    """Return times and two channels: the time, and ten times that."""
    times = np.arange(round(seconds * rate)) / rate
    return times, np.stack([times, 10 * times], 1).astype(np.float32)


def write_csv(path, separator=',', header='time,a,b', comma=False):
    times, values = ramp()
    rows = [separator.join(f'{each:.4f}' for each in (t, *v)) for t, v in zip(times, values)]
    text = '\n'.join([header.replace(',', separator), *rows]) + '\n'
    path.write_text(text.replace('.', ',') if comma else text)
    return path


def saved(path, array):
    np.save(path, array)
    return path


@pytest.fixture(params=['csv', 'csv with commas', 'csv with a rate', 'npy', 'npy with times'])
def series(request, tmp_path):
    """Return the same series from each kind of file."""
    times, values = ramp()
    path = tmp_path / ('s.csv' if 'csv' in request.param else 's.npy')
    if request.param == 'npy':
        return SeriesFile(saved(path, values), RATE)
    if request.param == 'npy with times':
        return SeriesFile(saved(path, np.column_stack([times, values])), 0.0)
    if request.param == 'csv with a rate':
        rows = [f'{a:.4f},{b:.4f}' for a, b in values]
        path.write_text('\n'.join(['a,b', *rows]))
        return SeriesFile(path, RATE)
    comma = 'commas' in request.param
    return SeriesFile(write_csv(path, ';' if comma else ',', comma=comma))


def test_an_interval_has_one_sample_more_on_each_side(series):
    times, values = series.values(1.01, 2.01)
    assert times == pytest.approx(np.arange(50, 102) / RATE)
    assert times.dtype == np.float64 and values.dtype == np.float32
    assert values == pytest.approx(np.stack([times, 10 * times], 1), abs=1e-4)


def test_times_of_samples_are_borders_too(series):
    times, _ = series.values(1.0, 2.0)
    assert times[0] <= 1.0 and times[-1] >= 2.0 and len(times) <= 53


def test_an_interval_beyond_the_ends_has_what_is_left(series):
    times, _ = series.values(-1.0, 0.05)
    assert times == pytest.approx([0.0, 0.02, 0.04, 0.06])
    times, _ = series.values(3.95, 9.0)
    assert times == pytest.approx([3.94, 3.96, 3.98])
    with pytest.raises(DataError, match=r'it ends after (3\.98|4\.00) s, before 4\.50 s'):
        series.values(4.5, 5.0)


def test_series_are_equal_hashable_and_have_no_problem(series):
    assert series == replace(series) and hash(series) == hash(replace(series))
    assert series.problem() is None


def test_later_axes_of_an_array_stay(tmp_path):
    joints = np.random.default_rng(1).random((90, 20, 3)).astype(np.float16)
    source = SeriesFile(saved(tmp_path / 'j.npy', joints), 30.0, factors=(1000.0,))
    times, values = source.values(1.0, 2.0)
    assert times[0] == 1.0 and values.shape == (len(times), 20, 3)
    np.testing.assert_array_equal(values, joints[30:61].astype(np.float32) * np.float32(1000))


def test_joints_that_are_not_seen_stay_nan_in_an_array(tmp_path):
    stored = np.ones((10, 4), np.float32)
    stored[3, 1] = np.nan
    _, values = SeriesFile(saved(tmp_path / 'j.npy', stored), 10.0).values(0.0, 1.0)
    assert np.isnan(values).sum() == 1


def test_of_an_array_only_the_interval_is_read(tmp_path, monkeypatch):
    path = tmp_path / 'long.npy'
    stored = np.lib.format.open_memmap(path, 'w+', np.float32, (50_000_000, 6))  # sparse
    stored[25_000_000] = 7
    del stored
    _, values = SeriesFile(path, 1000.0).values(24_999.5, 25_000.5)
    assert values.shape == (1001, 6) and values[500, 0] == 7


def test_factors_make_other_units_si_ones(tmp_path):
    path = write_csv(tmp_path / 's.csv')
    times, values = SeriesFile(path, factors=(2.0, -1.0)).values(1.0, 1.1)
    assert values == pytest.approx(np.stack([2 * times, -10 * times], 1), abs=1e-4)
    again = SeriesFile(path).values(1.0, 1.1)[1]  # what is held was not multiplied
    assert again[:, 0] == pytest.approx(times, abs=1e-4)
    with pytest.raises(DataError, match='it has 2 channels; expected 3, as manifest.scale has'):
        SeriesFile(path, factors=(1.0, 2.0, 3.0)).values(1.0, 2.0)


def test_columns_may_be_chosen_by_name(tmp_path):
    path = write_csv(tmp_path / 's.csv', header='time,left,Right')
    _, values = SeriesFile(path, columns=('right',)).values(1.0, 1.0)
    assert values.shape[1] == 1 and values.max() == pytest.approx(10.0)
    source = SeriesFile(path, columns=('right', 'front'))
    with pytest.raises(DataError, match="line 1: the column 'front' is missing: expected col"):
        source.values(1.0, 1.0)
    assert "'front' is missing" in source.problem()


def test_the_unnamed_index_of_pandas_is_no_channel(tmp_path):
    path = tmp_path / 's.csv'
    path.write_text(',time,a\n0,0.0,5\n1,0.1,6\n')
    assert SeriesFile(path).values(0.0, 0.1)[1].tolist() == [[5.0], [6.0]]


def test_the_first_sample_of_a_time_counts(tmp_path):
    path = tmp_path / 's.csv'
    path.write_text('time,a\n0.0,5\n0.0,6\n0.1,7\n')
    assert SeriesFile(path).values(0.0, 0.1)[1].tolist() == [[5.0], [7.0]]


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path, reads = tmp_path / 's.csv', []
    path.write_text('time,a\n0,1\n1,2\n')
    read = series_file.csv_rows
    monkeypatch.setattr(series_file, 'csv_rows', lambda each: reads.append(each) or read(each))
    for _ in range(3):
        assert SeriesFile(path).values(0.0, 1.0)[1][0, 0] == 1
    assert len(reads) == 1
    path.write_text('time,a\n0,8\n1,9\n')
    os.utime(path, ns=(1, 1))
    assert SeriesFile(path).values(0.0, 1.0)[1][0, 0] == 8
    assert len(reads) == 2


def test_the_memory_for_csv_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(series_file, '_MAX_HELD', 10_000)
    series_file._files.clear()
    for i in range(5):
        SeriesFile(write_csv(tmp_path / f'{i}.csv')).values(0.0, 1.0)
    assert len(series_file._files) == 3  # of 3200 bytes each
    monkeypatch.setattr(series_file, '_MOST_VALUES', 100)
    with pytest.raises(DataError, match='over 100 values: store it as an array'):
        SeriesFile(write_csv(tmp_path / 'long.csv')).values(0.0, 1.0)


@pytest.mark.parametrize(('text', 'complaint'), [
    ('time,a\n0,1\n1,\n', "line 3: a is ''; expected a number"),
    ('time,a\n0,1\n1,nan\n', "line 3: a is 'nan'; expected a number"),
    ('time,a\n0,1\n1,inf\n', "line 3: a is 'inf'"),
    ('time,a\n0,1\nx,2\n', "line 3: time is 'x'; expected a number"),
    ('time,a\n0,1\n\n1,b\n', "line 4: a is 'b'"),
    ('time,a\n0,1\n1\n', 'line 3: it has 1 cells; expected 2'),
    ('time,a\n1,1\n0.5,2\n', 'line 3: time is 0.5, before that of the line above, 1: sort it'),
    ('time,a\n', 'it holds no sample'),
    ('', 'line 1: expected the names of the columns'),
    ('0.0,1\n0.1,2\n', 'line 1: expected the names of the columns: add them'),
    ('a,b\n1,2\n', "line 1: the column 'time' is missing; expected one in seconds: add it; wh"),
    ('time\n1\n', 'line 1: it has no channel beside the time'),
])
def test_a_wrong_line_is_named(tmp_path, text, complaint):
    path = tmp_path / 's.csv'
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        SeriesFile(path).values(0.0, 1.0)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(('array', 'rate', 'complaint'), [
    (np.array([['a']], object), 10.0, 'it is no .npy file of numbers'),
    (np.zeros((0, 3)), 10.0, 'it holds float64 [0, 3]; expected numbers'),
    (np.array(['a', 'b']), 10.0, 'it holds <U1 [2]; expected numbers'),
    (np.zeros((4, 3, 2)), 0.0, 'it has the shape [4, 3, 2]; expected [n, 1 + channels], the f'),
    (np.array([[0.0, 1], [2, 1], [1, 1], [3, 1]]), 0.0, 'row 2: its time 1 is before the one ab'),
])
def test_a_wrong_array_is_named(tmp_path, array, rate, complaint):
    np.save(tmp_path / 's.npy', array, allow_pickle=True)
    with pytest.raises(DataError) as caught:
        SeriesFile(tmp_path / 's.npy', rate).values(0.0, 3.0)
    assert complaint in str(caught.value)


def test_files_that_are_none_have_a_problem(tmp_path):
    for name in ('none.csv', 'none.npy'):
        source = SeriesFile(tmp_path / name, 10.0)
        assert 'there is no such file' in source.problem()
        with pytest.raises(DataError, match='there is no such file'):
            source.values(0.0, 1.0)
    content = saved(tmp_path / 'a.npy', np.zeros((9, 2))).read_bytes()
    (tmp_path / 'cut.npy').write_bytes(content[:150])
    assert 'it is no .npy file of numbers' in SeriesFile(tmp_path / 'cut.npy', 10.0).problem()
    os.mkfifo(tmp_path / 'pipe.npy')
    assert 'pipe' in SeriesFile(tmp_path / 'pipe.npy', 10.0).problem()


def test_other_files_are_refused_when_they_are_opened(tmp_path):
    options = SourceOptions(rates={'rgb': 50.0}, scale={'rgb': [2.0]})
    source = open_series(tmp_path / 'a.npy', 'rgb', options)
    assert (source.rate, source.factors) == (50.0, (2.0,))
    with pytest.raises(DataError, match=r'expected a time series \(\.csv, \.npy\)'):
        open_series(tmp_path / 'a.mp4', 'rgb', options)
    with pytest.raises(DataError, match=r'expected the rate .*: set manifest.rates.audio \(Hz\)'):
        open_series(tmp_path / 'a.npy', 'audio', options)


@pytest.mark.parametrize(('changes', 'text'), [
    ({'rates': {'rgb': -1.0}}, 'manifest.rates.rgb is -1.0; expected samples a second, or 0'),
    ({'rates': {'rain': 1.0}}, "manifest.rates is 'rain'; expected names of modalities"),
    ({'scale': {'rgb': [0.0]}}, 'manifest.scale.rgb is [0.0]; expected a factor'),
    ({'scale': {'rgb': []}}, 'manifest.scale.rgb is []'),
    ({'scale': {'sun': [1.0]}}, "manifest.scale is 'sun'"),
])
def test_settings_out_of_range_are_named(changes, text):
    with pytest.raises(InvalidSettingError) as caught:
        SourceSettings(**changes)
    assert text in str(caught.value)
