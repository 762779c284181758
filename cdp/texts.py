"""Options as texts: query parameters and command-line flags, by the types and texts of their fields."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import attrs

from .validation import MAX_ECHO, Fault, ValidationError, bare_type, fields_of, help_of

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def value_of(text: str, kind: Any) -> Any:
    """What a text from a query or a command line means for a field; the text itself when it means nothing."""
    kind = bare_type(kind)
    try:
        if kind is bool:
            return _BOOLEANS.get(text.lower(), text)
        if get_origin(kind) is Literal and True in get_args(kind) and text[:1] != "{":
            return _BOOLEANS.get(text.lower(), text)
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
        if kind is not str and text[:1] in ("{", "["):
            return json.loads(text)
    except (ValueError, RecursionError):
        pass
    return text


def nested(pairs: Iterable[tuple[str, str]], cls: type) -> dict[str, Any]:
    """The object that dotted names and texts stand for: `viewport.width=800` is `{"viewport": {"width": 800}}`."""
    result: dict[str, Any] = {}
    for name, text in pairs:
        *parents, leaf = name.split(".", 3)
        known: dict[str, Any] = fields_of(cls)
        place: Any = result
        for parent in parents:
            inner = object_in(known.get(parent, str))
            known = fields_of(inner) if inner is not None else {}
            place = place.setdefault(parent, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict) or leaf in place:
            raise ValidationError([Fault(name[:MAX_ECHO], "is given twice")])
        place[leaf] = value_of(text, known.get(leaf, str))
    return result


def object_in(kind: Any) -> type | None:
    """The class of the objects that a field takes: its type, or what `Annotated` names beside another."""
    classes = (bare_type(kind), *get_args(kind)[1:])
    return next((one for one in classes if isinstance(one, type) and attrs.has(one)), None)


def flags_of(field: str) -> list[str]:
    """The flags of a field: with dashes, and as it is written in JSON."""
    return list(dict.fromkeys((f"--{field.replace('_', '-')}", f"--{field}")))


def boolean_flags(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The flags that may stand without a value."""
    for name, kind in fields.items():
        bare = bare_type(kind)
        if bare is bool:
            yield from flags_of(prefix + name)
        elif attrs.has(bare):
            yield from boolean_flags(fields_of(bare), f"{prefix}{name}.")


def with_values(arguments: list[str], classes: Iterable[type]) -> list[str]:
    """`--full-page URL` as `--full-page=true URL`: argparse would take the URL for the flag's value."""
    known = {flag for cls in classes for flag in boolean_flags(fields_of(cls))}
    pairs = itertools.zip_longest(arguments, arguments[1:], fillvalue="")
    alone = ((word, word in known and after.lower() not in ("true", "false", "1", "0")) for word, after in pairs)
    return [f"{word}=true" if is_alone else word for word, is_alone in alone]


def add_flags(parser: argparse._ArgumentGroup, fields: Mapping[str, Any], prefix: str = "") -> None:
    """A flag for each field, also with dashes for underscores, and one for each field of an object in it.

    Each collects a list of its values, so that one that stands twice can be told from one that stands once.
    """
    for name, kind in fields.items():
        full = prefix + name
        bare = bare_type(kind)
        options: dict[str, Any] = {
            "dest": full,
            "help": help_of(kind).replace("%", "%%"),
            "metavar": "VALUE",
            "action": "append",
        }
        if bare is bool:
            options["metavar"] = "true|false"
        elif get_origin(bare) is Literal:
            choices = get_args(bare)
            options["metavar"] = "|".join(one if isinstance(one, str) else json.dumps(one) for one in choices)
        parser.add_argument(*flags_of(full), **options)
        if attrs.has(bare):
            add_flags(parser, fields_of(bare), f"{full}.")
