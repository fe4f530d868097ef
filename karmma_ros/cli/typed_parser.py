"""Parsers whose options come from dataclasses."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings


def typed_parser(**options: Any) -> ArgumentParser:
    """
    Return a parser that takes the help of an option from the docstring under its field.

    :param options: of `jsonargparse.ArgumentParser`.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return ArgumentParser(**options)
