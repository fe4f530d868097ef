"""JSON of frozen dataclasses, and the JSON Schema that describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, MISSING
import math
import types
from typing import Any, get_args, get_origin, get_type_hints, Union

import numpy as np

DIALECT = 'https://json-schema.org/draft/2020-12/schema'
_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {'type': 'string'}, bool: {'type': 'boolean'}, int: {'type': 'integer'},
    float: {'type': ['number', 'null']}, type(None): {'type': 'null'}, Any: {}}


def to_json(value: Any, digits: int | None = 6) -> Any:
    """
    Return what `json.dumps` can write: no dataclass, no numpy.

    NaN and infinity become None. A dataclass field with a default is left out while it is None.

    :param digits: to which floats are rounded; None keeps them as they are.
    """
    if is_dataclass(value):
        items = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: to_json(x, digits) for f, x in items if x is not None or not _optional(f)}
    if isinstance(value, Mapping):
        return {str(key): to_json(x, digits) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(x, digits) for x in value]
    if isinstance(value, np.generic):
        return to_json(value.item(), digits)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else round(value, digits)
    return value


def json_schema(root: type, identifier: str) -> dict[str, Any]:
    """Return the JSON Schema of what `to_json` makes of a dataclass."""
    definitions: dict[str, Any] = {}
    reference = _schema_of(root, definitions)
    return {'$schema': DIALECT, '$id': identifier, **reference,
            '$defs': dict(sorted(definitions.items()))}


def _schema_of(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if annotation in _SIMPLE:
        return dict(_SIMPLE[annotation])
    if is_dataclass(annotation):
        assert isinstance(annotation, type)
        name = annotation.__name__
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _object(annotation, definitions)
        return {'$ref': f'#/$defs/{name}'}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return {'anyOf': [_schema_of(each, definitions) for each in arguments]}
    if origin is tuple and arguments[-1] is not Ellipsis:
        return {'type': 'array', 'minItems': len(arguments), 'maxItems': len(arguments),
                'prefixItems': [_schema_of(each, definitions) for each in arguments]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {'type': 'object', 'additionalProperties': _schema_of(arguments[1], definitions)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {'type': 'array', 'items': _schema_of(arguments[0], definitions)}
    raise TypeError(f'annotation is {annotation}; expected a JSON type or a dataclass')


def _object(each: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(each)
    members = fields(each)
    return {
        'type': 'object', 'description': ' '.join((each.__doc__ or '').split()),
        'properties': {f.name: _schema_of(hints[f.name], definitions) for f in members},
        'required': [f.name for f in members if not _optional(f)],
        'additionalProperties': False}


def _optional(field: Any) -> bool:
    return field.default is None and field.default is not MISSING
