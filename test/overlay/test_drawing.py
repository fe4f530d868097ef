"""What the overlay draws: properties of the image, whatever it is given."""

from __future__ import annotations

from itertools import combinations

from karmma_ros.errors import InvalidSettingError
from karmma_ros.overlay.drawing import (
    draw,
    enlarge,
    Indicator,
    Label,
    load_fonts,
    placeholder,
    SensorIndicator,
    View,
)
import numpy as np
from PIL import ImageFont
import pytest

LONG = 'a class whose name is much longer than any image is wide ' * 5
FOREIGN = ['Käse', 'crème brûlée', 'Straße', '切る', 'нож', '🥄', 'tab\tand\nline', '\x00', '']
# Viénot, Brettel and Mollon (1999): what those without one type of cone see, of linear light.
BLIND = {
    'protanope': [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    'deuteranope': [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


@pytest.fixture(params=['installed', 'none installed'])
def fonts(request, monkeypatch):
    if request.param == 'none installed':
        monkeypatch.setattr(ImageFont, 'truetype', only_files_in_memory)
    return load_fonts()


def only_files_in_memory(font, *arguments, truetype=ImageFont.truetype, **options):
    """Load Pillow's own font, and none by its name."""
    if isinstance(font, str):
        raise OSError('cannot open resource')
    return truetype(font, *arguments, **options)


def view(verb='scrape', noun='bread', state=Indicator.USED, reason='', **fields):
    """Return a view with a prediction and four equal indicators."""
    labels = tuple((Label(name, 0.9), Label('cut', 0.06), Label('stir', 0.01))
                   for name in (verb, noun))
    sensors = tuple(SensorIndicator(letter, state, reason) for letter in 'VFAD')
    return View(**{'sensors': sensors, 'labels': labels, 'age_s': 0.033, **fields})


def frame(height=480, width=640, shade=128):
    return np.full((height, width, 3), shade, np.uint8)


@pytest.mark.parametrize('size', [(1, 1), (3, 40), (120, 160), (480, 640), (1000, 90),
                                  (2160, 3840)])
def test_size_and_type_are_kept_and_the_image_itself_is_not_touched(size, fonts):
    image = frame(*size)
    drawn = draw(
        image, view(state=Indicator.OUT, reason=LONG, action=LONG, warning=LONG), fonts
    )
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (image == 128).all()
    assert (drawn != image).any()


def test_every_state_of_an_indicator_has_a_shape_of_its_own(fonts):
    """Seen without colour: where it is lit against its dark background."""
    shapes = {}
    for state in Indicator:
        drawn = draw(
            frame(), View(sensors=(SensorIndicator('V', state),), notice='none'), fonts
        )
        shapes[state] = drawn[12:42, 12:42].astype(int).max(axis=2) > 75
    for one, other in combinations(Indicator, 2):
        assert (shapes[one] != shapes[other]).sum() > 60, (one, other)


@pytest.mark.parametrize('cones', BLIND)
def test_colour_blind_people_can_distinguish_the_indicators(cones):
    seen = {}
    for state in Indicator:
        drawn = draw(frame(shade=0), View(sensors=(SensorIndicator('', state),)), load_fonts())
        area = drawn[12:42, 12:42].reshape(-1, 3).astype(float)
        colour = area[area.max(axis=1).argmax()] / 255
        seen[state] = np.clip(np.array(BLIND[cones]) @ colour ** 2.2, 0, 1) ** (1 / 2.2)
    for one, other in combinations(Indicator, 2):
        assert np.abs(seen[one] - seen[other]).max() > 0.1, (one, other)


def test_a_long_name_stays_in_its_half_and_inside_the_margins(fonts):
    short, long = (draw(frame(), view(verb=name), fonts) for name in ('cut', LONG))
    assert (short != long).any()
    assert (short[:, 320:] == long[:, 320:]).all(), 'it runs into the nouns'
    assert (short[:, :12] == long[:, :12]).all()


def test_a_long_reason_stays_inside(fonts):
    bare = draw(frame(), view(state=Indicator.OUT), fonts)
    drawn = draw(frame(), view(state=Indicator.OUT, reason=LONG), fonts)
    assert (drawn != bare).any()
    assert (drawn[:, -12:] == bare[:, -12:]).all()


@pytest.mark.parametrize('name', FOREIGN)
def test_any_name_can_be_drawn(name, fonts):
    drawn = draw(frame(), view(verb=name, noun=name, reason=name, action=name), fonts)
    assert drawn.shape == (480, 640, 3)
    assert (fonts.mask(name, 20).getbbox() is not None) == bool(name.strip())


@pytest.mark.parametrize('size', [1, 5, 14, 60])
def test_text_is_never_wider_than_its_space(fonts, size):
    for width in (1, 7, 40, 300):
        assert fonts.mask(LONG, size, width).width <= width
    heights = {fonts.mask(text, size).height for text in ('a', 'gÄ|', '')}
    assert len(heights) == 1, 'lines of one size share a base line'


@pytest.mark.parametrize('score', [float('nan'), float('inf'), -1.0, 7.0])
def test_a_senseless_score_is_survived(score):
    labels = ((Label('cut', score),),)
    drawn = draw(frame(), View(labels=labels, age_s=score), load_fonts())
    assert drawn.shape == (480, 640, 3)


def test_bars_are_as_long_as_the_scores():
    def lit(score):
        drawn = draw(frame(), View(labels=((Label('', score),),)), load_fonts()).astype(int)
        green = (drawn[:, :, 1] - drawn[:, :, 0] > 100).any(axis=0)
        return int(green.sum())
    assert lit(0.0) == 0
    assert lit(0.5) == pytest.approx(lit(1.0) / 2, abs=2)


@pytest.mark.parametrize('shade', [0, 128, 255])
def test_text_stands_out_from_any_image(shade):
    """WCAG requires a contrast of 4.5."""
    def luminance(value):
        return (value / 255) ** 2.2
    ground = draw(frame(shade=shade), view(), load_fonts())[-2, 2].max()
    assert (luminance(200) + 0.05) / (luminance(ground) + 0.05) > 4.5


def test_an_old_image_is_darker():
    fresh, old = (draw(frame(), View(notice='x', warning=text), load_fonts())[200, 500, 0]
                  for text in ('', 'no image for 3 s'))
    assert old < 0.6 * fresh


def test_a_small_image_is_enlarged_in_its_proportions():
    assert enlarge(frame(120, 160), 640).shape == (480, 640, 3)
    large = frame(480, 640)
    assert enlarge(large, 640) is large and enlarge(large, 0) is large
    assert enlarge(frame(5000, 1), 640).shape == (5000, 1, 3), 'not to 3.2 million rows'


def test_the_placeholder_is_an_image():
    assert placeholder((64, 48)).shape == (48, 64, 3)


def test_a_font_that_is_not_installed_is_named():
    with pytest.raises(InvalidSettingError, match="font is 'nowhere.ttf'"):
        load_fonts('nowhere.ttf')


def test_a_line_break_becomes_a_space_and_accents_are_drawn(fonts):
    def drawn(text):
        return fonts.mask(text, 40).tobytes()
    assert drawn('a\n b') == drawn('a b')
    assert drawn('Käse') != drawn('Kase')
