"""Print the tables of modalities that docs/modalities.md holds."""

import ast
from collections.abc import Iterator
from dataclasses import fields
import inspect
import re

from karmma_ros.clip import ClipSpec
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.modality_type import ModalityType
from karmma_ros.modality import Modality, PAPER_MODALITIES, REGISTRY

SERIES = '`.csv`, `.npy`'
FILES = {
    'rgb': 'video, folder of images', 'flow': '`computed`, folder of images',
    'audio': 'wav, flac', 'detections': '`.csv`', 'imu': SERIES,
    'depth': 'grey video, folder of PNGs, `.npy`', 'skeleton': SERIES, 'joint_state': SERIES,
    'vector': SERIES,
}
"""Type → what a cell of a manifest may name."""
CLIP = ClipSpec(inputs={
    'vector': {'size': 6}, 'joint_state': {'names': [f'joint_{i}' for i in range(1, 7)]}})
"""The default clip, and what must be set: six values, six joints."""
COMMON = 'enabled', 'timeout', 'min_coverage', 'qos'
"""Parameters of every input."""


def types() -> tuple[ModalityType, ...]:
    """Return the types of the package, in order."""
    return tuple(modality_type(Modality(name)) for name in REGISTRY if name in FILES)


def overview() -> str:
    """Return one row for each type."""
    return _table(
        ['modality', 'letter', 'topic', 'message types', 'input', 'by default', 'files',
         'computed from'],
        ([f'`{own.name}`', own.letter, f'`{own.topic_name}`', _listed(own.message_types),
          f'`{_symbols(own)}`', ' x '.join(map(str, own.input_shape(CLIP))), FILES[own.name],
          f'`{own.derived_from}`' if own.derived_from else ''] for own in types()))


def common_parameters() -> str:
    """Return one row for each parameter that every input has."""
    declarations = modality_type(Modality('imu')).declarations()[:len(COMMON)]
    others = '; '.join(f'{own.name}: `{own.timeout}`' for own in types()
                       if own.timeout != ModalityType.timeout)
    meanings = {'enabled': 'Use this input; false unsubscribes and discards what was received.',
                'timeout': 'Seconds without a message after which it is stale. Other defaults: '
                           f'{others}.'}
    return _table(['parameter', 'default', 'allowed', ''], (
        [f'`NAME.{name}`', _default(each), _allowed(each), meanings.get(name, each.description)]
        for name, each in zip(COMMON, declarations)))


def sections() -> str:
    """Return the fields and the parameters of each type that is not the paper's."""
    return '\n'.join(_section(own) for own in types() if own.modality not in PAPER_MODALITIES)


def _section(own: ModalityType) -> str:
    rows = [*_fields(own.spec_class), *(
        [f'parameter `{each.name}`', _default(each), f'{each.description} Allowed: '
         f'{_allowed(each)}.'] for each in own.declarations()[len(COMMON):])]
    return f'### {own.name}\n\n{_table(["", "default", ""], rows)}'


def _fields(spec_class: type) -> Iterator[list[str]]:
    """Yield name, default and docstring of each field of a specification."""
    texts: dict[str, str] = {}
    for each in (*reversed(spec_class.__mro__[:-1]),):
        body = ast.parse(inspect.getsource(each)).body[0].body  # type: ignore[attr-defined]
        for field, text in zip(body, body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[ast.unparse(field.target)] = inspect.cleandoc(
                    ast.literal_eval(text.value)).replace('\n', ' ')
    for each in fields(spec_class):
        default = list(each.default) if isinstance(each.default, tuple) else each.default
        yield [f'field `{each.name}`', f'`{_yaml(default)}`', texts[each.name]]


def _symbols(own: ModalityType) -> str:
    """Return the shape of the input in letters, as its docstring has it."""
    match = re.search(r'`(\[.+?\])`', type(own).input_shape.__doc__ or '')
    if match is None:
        raise ValueError(f'{own.name}: its docstring states no shape')
    return match[1]


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f'[{", ".join(map(str, value))}]'
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def _default(declaration: Declaration) -> str:
    value = declaration.default
    return "`['']`" if value == [''] else f'`{_yaml(value)}`'


def _allowed(declaration: Declaration) -> str:
    return _listed(declaration.choices) if declaration.choices else declaration.allowed


def _listed(names: tuple[str, ...]) -> str:
    return ', '.join(f'`{name}`' for name in names)


def _table(header: list[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def page_parts() -> tuple[str, ...]:
    """Return everything that docs/modalities.md holds of this script."""
    return overview(), common_parameters(), sections()


if __name__ == '__main__':
    print('\n'.join(page_parts()), end='')
