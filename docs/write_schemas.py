"""
Write the JSON Schemas of what the commands write: `python docs/write_schemas.py`.

test/test_schemas.py compares the files with the dataclasses.
"""

import json
from pathlib import Path

from karmma_ros.bags.report import bag_report
from karmma_ros.evaluation import report as scores_report
from karmma_ros.evaluation.schema import json_schema
from karmma_ros.reproduce import results

FOLDER = Path(__file__).resolve().parent / 'schemas'
SCHEMAS = {
    'report': (bag_report.BagReport, bag_report.SCHEMA_ID),
    'scores': (scores_report.ScoresReport, scores_report.SCHEMA_ID),
    'results': (results.Results, results.SCHEMA_ID),
}


def main() -> None:
    """Write every schema."""
    for name, (root, identifier) in SCHEMAS.items():
        text = json.dumps(json_schema(root, identifier), indent=1) + '\n'
        (FOLDER / f'{name}.schema.json').write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
