"""Table VI's three numbers, by hand and against the paper."""

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.robustness import average_accuracy, average_ranks, relative_drop
import numpy as np
import pytest

COLUMN = {'V+A': 0.8, 'V': 0.6, 'A': 0.2}


def test_by_hand():
    assert average_accuracy(COLUMN) == pytest.approx(1.6 / 3)
    assert relative_drop(COLUMN, 'V+A') == pytest.approx((0.2 / 0.8 + 0.6 / 0.8) / 2)


def test_the_paper_s_row_fits_this_reading_and_no_other():
    # 50 % dropout: average 24.23 over 7 subsets, 34.99 with all, printed drop 35.95.
    rest = (7 * 24.23 - 34.99) / 6
    column = {'V+F+A': 34.99, **dict.fromkeys(('V+F', 'V+A', 'F+A', 'V', 'F', 'A'), rest)}
    assert average_accuracy(column) == pytest.approx(24.23)
    assert 100 * relative_drop(column, 'V+F+A') == pytest.approx(35.95, abs=0.1)
    assert 100 * (1 - 24.23 / 34.99) < 31


@pytest.mark.parametrize('column', [{}, {'V+A': 0.5}, {'V': 0.5, 'A': 0.2},
                                    {'V+A': 0.0, 'V': 0.1}])
def test_an_undefined_drop_is_nan(column):
    assert np.isnan(relative_drop(column, 'V+A'))


def test_no_subset_has_no_average():
    assert np.isnan(average_accuracy({}))


def test_ranks_by_hand():
    ranks = average_ranks({
        'good': {'V+A': 0.9, 'V': 0.5, 'A': 0.1},
        'even': {'V+A': 0.8, 'V': 0.5, 'A': 0.3},
        'bad': {'V+A': 0.1, 'V': 0.5, 'A': 0.2}})
    assert ranks == pytest.approx({'good': (1 + 2 + 3) / 3, 'even': (2 + 2 + 1) / 3,
                                   'bad': (3 + 2 + 2) / 3})


def test_only_common_subsets_are_ranked():
    assert average_ranks({'a': {'V+A': 0.9, 'V': 0.1}, 'b': {'V': 0.2}}) == {'a': 2, 'b': 1}
    with pytest.raises(InvalidSettingError, match='at least one subset in common'):
        average_ranks({'a': {'V': 0.1}, 'b': {'A': 0.1}})
