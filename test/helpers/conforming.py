"""Whether JSON fits the JSON Schema that describes it; only the words that we write."""

from collections.abc import Mapping
from typing import Any


def conforms(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a value fits a schema of `karmma_ros.evaluation.schema.json_schema`."""
    return _fits(value, schema, schema['$defs'])


def _fits(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    if '$ref' in schema:
        return _fits(value, definitions[schema['$ref'].rpartition('/')[2]], definitions)
    if 'anyOf' in schema:
        return any(_fits(value, each, definitions) for each in schema['anyOf'])
    types = {'string': str, 'boolean': bool, 'integer': int, 'number': (int, float),
             'null': type(None), 'array': list, 'object': dict}
    named = schema.get('type', [])
    named = [named] if isinstance(named, str) else named
    if named and not any(isinstance(value, types[each]) for each in named):
        return False
    if isinstance(value, dict) and 'properties' in schema:
        return set(schema['required']) <= set(value) <= set(schema['properties']) and all(
            _fits(x, schema['properties'][k], definitions) for k, x in value.items())
    if isinstance(value, dict) and isinstance(schema.get('additionalProperties'), dict):
        return all(_fits(x, schema['additionalProperties'], definitions)
                   for x in value.values())
    if 'prefixItems' in schema:
        return len(value) == schema['minItems'] and all(
            _fits(x, each, definitions) for x, each in zip(value, schema['prefixItems']))
    return 'items' not in schema or all(_fits(x, schema['items'], definitions) for x in value)
