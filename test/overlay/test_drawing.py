"""What the overlay draws: properties of the picture, whatever it is given."""

from __future__ import annotations

from itertools import combinations

from karmma_ros.errors import InvalidSettingError
from karmma_ros.overlay.drawing import (
    draw,
    enlarge,
    Indicator,
    Label,
    placeholder,
    SensorIndicator,
    View,
)
from karmma_ros.overlay.lettering import choose_text_renderer, plain, Strokes, TrueType
import numpy as np
import pytest

LONG = 'a class whose name is much longer than any picture is wide ' * 5
FOREIGN = ['Käse', 'crème brûlée', 'Straße', '切る', 'нож', '🥄', 'tab\tand\nline', '\x00', '']
LETTERINGS = [Strokes(), choose_text_renderer()]
# Viénot, Brettel and Mollon (1999): what those without one kind of cone see, of linear light.
BLIND = {
    'protanope': [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    'deuteranope': [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


@pytest.fixture(params=LETTERINGS, ids=lambda lettering: type(lettering).__name__)
def lettering(request):
    return request.param


def view(verb='scrape', noun='bread', lamp=Indicator.USED, reason='', **fields):
    """Return a view with an answer and four equal lamps."""
    labels = tuple((Label(name, 0.9), Label('cut', 0.06), Label('stir', 0.01))
                   for name in (verb, noun))
    sensors = tuple(SensorIndicator(letter, lamp, reason) for letter in 'VFAD')
    return View(**{'sensors': sensors, 'labels': labels, 'age_s': 0.033, **fields})


def picture(height=480, width=640, shade=128):
    return np.full((height, width, 3), shade, np.uint8)


@pytest.mark.parametrize('size', [(1, 1), (3, 40), (120, 160), (480, 640), (1000, 90),
                                  (2160, 3840)])
def test_size_and_kind_are_kept_and_the_picture_itself_is_not_touched(size, lettering):
    image = picture(*size)
    drawn = draw(
        image, view(lamp=Indicator.OUT, reason=LONG, running=LONG, warning=LONG), lettering
    )
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (image == 128).all()
    assert (drawn != image).any()


def test_every_state_of_a_lamp_has_a_shape_of_its_own(lettering):
    """Seen without colour: where the lamp is lit against its dark ground."""
    shapes = {}
    for lamp in Indicator:
        drawn = draw(
            picture(), View(sensors=(SensorIndicator('V', lamp),), notice='none'), lettering
        )
        shapes[lamp] = drawn[12:42, 12:42].astype(int).max(axis=2) > 75
    for one, other in combinations(Indicator, 2):
        assert (shapes[one] != shapes[other]).sum() > 60, (one, other)


@pytest.mark.parametrize('kind', BLIND)
def test_colour_blind_people_can_tell_the_lamps(kind):
    seen = {}
    for lamp in Indicator:
        drawn = draw(picture(shade=0), View(sensors=(SensorIndicator('', lamp),)), LETTERINGS[0])
        area = drawn[12:42, 12:42].reshape(-1, 3).astype(float)
        colour = area[area.max(axis=1).argmax()] / 255
        seen[lamp] = np.clip(np.array(BLIND[kind]) @ colour ** 2.2, 0, 1) ** (1 / 2.2)
    for one, other in combinations(Indicator, 2):
        assert np.abs(seen[one] - seen[other]).max() > 0.1, (one, other)


def test_a_long_name_stays_in_its_half_and_inside_the_margins(lettering):
    short, long = (draw(picture(), view(verb=name), lettering) for name in ('cut', LONG))
    assert (short != long).any()
    assert (short[:, 320:] == long[:, 320:]).all(), 'it runs into the nouns'
    assert (short[:, :12] == long[:, :12]).all()


def test_a_long_reason_stays_inside(lettering):
    bare = draw(picture(), view(lamp=Indicator.OUT), lettering)
    drawn = draw(picture(), view(lamp=Indicator.OUT, reason=LONG), lettering)
    assert (drawn != bare).any()
    assert (drawn[:, -12:] == bare[:, -12:]).all()


@pytest.mark.parametrize('name', FOREIGN)
def test_any_name_can_be_drawn(name, lettering):
    drawn = draw(picture(), view(verb=name, noun=name, reason=name, running=name), lettering)
    assert drawn.shape == (480, 640, 3)
    assert lettering.mask(name, 20).any() == bool(name.strip())


def test_what_opencv_lacks_is_written_by_its_nearest_letters():
    assert plain('Käse in Scheiben, Straße, crème, Łódź') == (
        'Kase in Scheiben, Strasse, creme, Lodz')
    assert plain('切る') == '??'
    strokes = Strokes()
    assert (strokes.mask('Käse', 20) == strokes.mask('Kase', 20)).all()


@pytest.mark.parametrize('size', [1, 5, 14, 60])
def test_text_is_never_wider_than_there_is_room(lettering, size):
    for width in (1, 7, 40, 300):
        assert lettering.fit(LONG, size, width).shape[1] <= width
    heights = {lettering.mask(text, size).shape[0] for text in ('a', 'gÄ|', '')}
    assert len(heights) == 1, 'lines of one size share a base line'


@pytest.mark.parametrize('score', [float('nan'), float('inf'), -1.0, 7.0])
def test_a_senseless_score_is_survived(score):
    labels = ((Label('cut', score),),)
    drawn = draw(picture(), View(labels=labels, age_s=score), LETTERINGS[0])
    assert drawn.shape == (480, 640, 3)


def test_bars_are_as_long_as_the_scores():
    def lit(score):
        drawn = draw(picture(), View(labels=((Label('', score),),)), LETTERINGS[0]).astype(int)
        green = (drawn[:, :, 1] - drawn[:, :, 0] > 100).any(axis=0)
        return int(green.sum())
    assert lit(0.0) == 0
    assert lit(0.5) == pytest.approx(lit(1.0) / 2, abs=2)


@pytest.mark.parametrize('shade', [0, 128, 255])
def test_text_stands_out_from_any_picture(shade):
    """WCAG asks for a contrast of 4.5."""
    def luminance(value):
        return (value / 255) ** 2.2
    ground = draw(picture(shade=shade), view(), LETTERINGS[0])[-2, 2].max()
    assert (luminance(200) + 0.05) / (luminance(ground) + 0.05) > 4.5


def test_an_old_picture_is_darker():
    fresh, old = (draw(picture(), View(notice='x', warning=text), LETTERINGS[0])[200, 500, 0]
                  for text in ('', 'no picture for 3 s'))
    assert old < 0.6 * fresh


def test_a_small_picture_is_enlarged_in_its_proportions():
    assert enlarge(picture(120, 160), 640).shape == (480, 640, 3)
    large = picture(480, 640)
    assert enlarge(large, 640) is large and enlarge(large, 0) is large
    assert enlarge(picture(5000, 1), 640).shape == (5000, 1, 3), 'not to 3.2 million rows'


def test_the_placeholder_is_a_picture():
    assert placeholder((64, 48)).shape == (48, 64, 3)


def test_a_font_that_is_not_there_is_named():
    with pytest.raises(InvalidSettingError, match="font is 'nowhere.ttf'"):
        choose_text_renderer('nowhere.ttf')


def test_without_pillow_strokes_serve(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'PIL', None)
    assert isinstance(choose_text_renderer(), Strokes)


if isinstance(LETTERINGS[1], TrueType):
    def test_letters_that_the_font_has_are_kept():
        assert LETTERINGS[1].readable('Käse ') == 'Käse'
        assert LETTERINGS[1].readable('切 \x07') == '? ?'
