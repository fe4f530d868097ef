"""The JSON Schemas in the manual are those of the dataclasses."""

import json
from pathlib import Path
import runpy

from karmma_ros.evaluation.schema import json_schema
import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / 'docs' / 'write_schemas.py'))
FOLDER, SCHEMAS = SCRIPT['FOLDER'], SCRIPT['SCHEMAS']


def test_every_schema_has_a_class():
    assert {path.name for path in FOLDER.iterdir()} == {f'{n}.schema.json' for n in SCHEMAS}


@pytest.mark.parametrize('name', SCHEMAS)
def test_a_schema_is_current(name):
    written = json.loads((FOLDER / f'{name}.schema.json').read_text(encoding='utf-8'))
    assert written == json_schema(*SCHEMAS[name]), 'run docs/write_schemas.py'
