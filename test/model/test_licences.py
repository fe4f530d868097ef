"""What the licence of a model forbids holds for models that are made of it."""

from __future__ import annotations

import json
from pathlib import Path

from karmma_ros.model.bundle import FORMAT
from karmma_ros.model.licences import (
    inherited_licence,
    licence_note,
    merged_licence,
    terms,
    with_licence,
)
import pytest

FORBIDDING = {'licence': 'CC BY-NC 4.0', 'commercial_use': False}
FREE = {'licence': 'MIT', 'commercial_use': True}
CARD = '---\nlicense: apache-2.0\n---\n\n# kitchen\n'


@pytest.mark.parametrize(('sources', 'merged'), [
    ([], {}), ([{}], {}), ([FREE], FREE), ([{}, FORBIDDING], FORBIDDING),
    ([FREE, FORBIDDING, FREE], {'licence': 'MIT; CC BY-NC 4.0', 'commercial_use': False}),
])
def test_licences_are_merged(sources, merged):
    assert merged_licence(sources) == merged


def write(folder: Path, source) -> Path:
    folder.mkdir()
    (folder / 'model.safetensors').write_bytes(b'')
    (folder / 'config.json').write_text(json.dumps({'format': FORMAT, 'source': source}))
    return folder


def test_a_training_inherits_the_licence_of_its_weights(tmp_path):
    folders = [write(tmp_path / 'a', FORBIDDING), write(tmp_path / 'b', {}), tmp_path]
    assert inherited_licence(folders) == FORBIDDING
    assert inherited_licence(folders[1:]) == {}


def test_the_card_and_the_data_set_state_it():
    assert terms(FORBIDDING) == 'CC BY-NC 4.0: no commercial use' and terms(FREE) == 'MIT'
    card = with_licence(CARD, FORBIDDING)
    assert 'license: other' in card and 'apache' not in card
    assert card.endswith('weights it started from: CC BY-NC 4.0: no commercial use.\n')
    assert licence_note(FORBIDDING) == (
        '; started from weights under CC BY-NC 4.0: no commercial use')
    assert (with_licence(CARD, {}), licence_note({}), terms({})) == (CARD, '', '')
