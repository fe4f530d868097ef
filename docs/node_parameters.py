"""Print the table of the node's parameters that docs/node.md holds."""

from karmma_ros.node.declarations import Declaration, DECLARATIONS


def table() -> str:
    """Return one row for each parameter, in Markdown."""
    rows = ['| parameter | default | allowed | |', '|---|---|---|---|']
    rows += [f'| `{d.name}` | {_default(d)} | {_allowed(d)} | {_meaning(d)} |'
             for d in DECLARATIONS]
    return '\n'.join(rows) + '\n'


def _default(declaration: Declaration) -> str:
    """Write the default as in a YAML file."""
    value = declaration.default
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'`{text}`' if text else "`''`"


def _allowed(declaration: Declaration) -> str:
    if declaration.choices:
        return ', '.join(f'`{choice}`' for choice in declaration.choices)
    return declaration.allowed


def _meaning(declaration: Declaration) -> str:
    return declaration.text.replace('|', '\\|')


if __name__ == '__main__':
    print(table(), end='')
