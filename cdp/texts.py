"""Options as texts: query parameters, flags and documentation, by the types and texts of their fields; safe texts."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from .options import Action, Cookie, Length, OneOrMore, Range, WaitFor
from .validation import MAX_ECHO, Fault, ValidationError, bare_type, fields_of

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
# Controls and half characters, and what turns the direction of writing: pages' words must not make lines of their own.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text in one line, with escapes for what must not reach a terminal or a log."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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
        if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
            return text.split(",")
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


def flags_in(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each flag of some fields, and of the fields of objects in them, with its bare type."""
    for name, kind in fields.items():
        bare = bare_type(kind)
        yield f"--{prefix}{name}".replace("_", "-"), bare
        if attrs.has(bare):
            yield from flags_in(fields_of(bare), f"{prefix}{name}.")


def with_values(arguments: list[str], classes: Iterable[type]) -> list[str]:
    """Flags with dashes, where they have underscores as in JSON, and `--full-page URL` as `--full-page=true URL`.

    argparse would take the URL for the flag's value.
    """
    known = {flag: bare for cls in classes for flag, bare in flags_in(fields_of(cls))}
    words = []
    for word, after in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        flag = name.replace("_", "-")
        word = flag + equals + value if flag in known else word
        words.append(f"{word}=true" if known.get(word) is bool and after.lower() not in _BOOLEANS else word)
    return words


def add_flags(parser: argparse._ArgumentGroup, cls: type, names: Iterable[str] | None = None, prefix: str = "") -> None:
    """A flag for each field of a class, or for some, and one for each field of an object in it.

    Each collects a list of its values, so that one that stands twice can be told from one that stands once.
    """
    kinds = fields_of(cls)
    known = {row.name: row for row in rows(cls)}
    for name in kinds if names is None else names:
        bare = bare_type(kinds[name])
        parser.add_argument(
            f"--{prefix}{name}".replace("_", "-"),
            dest=prefix + name,
            action="append",
            metavar=_placeholder(bare, known[name].default),
            help=_help_text(known[name], bare).replace("%", "%%"),
        )
        if attrs.has(bare):
            add_flags(parser, bare, prefix=f"{prefix}{name}.")


def _placeholder(bare: Any, default: str) -> str:
    """What `--help` shows for a flag's value; nothing where it may stand alone and nothing else makes sense."""
    if bare is bool:
        return {"false": "", "true": "false"}.get(default, "true|false")
    if get_origin(bare) is Literal:
        return "|".join(one if isinstance(one, str) else json.dumps(one) for one in get_args(bare))
    if attrs.has(bare) or bare == Mapping[str, str]:
        return "JSON"
    return {int: "N", float: "N", str: "TEXT"}.get(bare, "VALUE")


def _help_text(row: Row, bare: Any) -> str:
    """A field's text with its limits and its default, where they say something."""
    notes = [row.limits] if bare in (int, float) and row.limits else []
    if row.default not in ("", "{}", "false", "required") and "default" not in row.text:
        default = json.loads(row.default)
        notes.append(f"default: {default if isinstance(default, str) else row.default}")
    return row.text + (f" ({'; '.join(notes)})" if notes else "")


# ---- Documentation ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Row:
    """One field, as its documentation shows it."""

    name: str
    type: str
    """In the words of JSON."""
    default: str
    """As JSON; `required` where there is none, empty where the field may be left out and then means nothing."""
    limits: str
    text: str


# What validation takes for these types besides what they say.
_TYPE_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "integer",
    float: "number",
    Mapping[str, str]: "object of texts",
    Action: "Action",
    tuple[WaitFor, ...]: "text, WaitFor, or list of both",
    tuple[Cookie, ...]: "list of Cookie, or text",
}


def rows(cls: type, words: Mapping[Any, str] = _TYPE_WORDS) -> list[Row]:
    """The fields of a class, inherited ones too; `words` says what JSON has for types that are not known here."""
    known = {**_TYPE_WORDS, **words}
    kinds = fields_of(cls)
    found = []
    for field in attrs.fields(cls):
        kind = kinds[field.name]
        text = next((extra for extra in _parts_of(kind)[0] if isinstance(extra, str)), "")
        found.append(
            Row(field.name, type_words(kind, known), _default_words(field.default), limits_of(kind), text),
        )
    return found


def type_words(kind: Any, words: Mapping[Any, str] = _TYPE_WORDS) -> str:
    """What JSON has for a type; an object is called by the name of its class."""
    extras, kind = _parts_of(kind)
    if kind in words:
        return words[kind]
    if get_origin(kind) is Literal:
        choices = ", ".join(f"`{json.dumps(choice)}`" for choice in get_args(kind))
        return choices + (", or object" if any(isinstance(extra, type) for extra in extras) else "")
    if get_origin(kind) is tuple:
        item = type_words(get_args(kind)[0], words)
        # Choices have commas of their own.
        listed = f"list of: {item}" if "," in item else f"list of {item}"
        return f"{item}, or {listed}" if OneOrMore() in extras else listed
    arms = get_args(kind)
    return " or ".join(type_words(arm, words) for arm in arms) if arms else str(kind.__name__)


def limits_of(kind: Any) -> str:
    """The limits of a field's value, and of the items where it is a list."""
    extras, bare = _parts_of(kind)
    limits = [_limit_words(extra, bare) for extra in extras if isinstance(extra, Range | Length)]
    inner = [limits_of(arm) for arm in get_args(bare) if get_origin(bare) is not Literal and arm is not Ellipsis]
    each = "each " if get_origin(bare) is tuple else ""
    limits += [each + limit for limit in inner if limit]
    return "; ".join(limits)


def _limit_words(limit: Range | Length, bare: Any) -> str:
    if isinstance(limit, Range):
        if limit.minimum is None or limit.maximum is None:
            return str(limit)
        return f"{limit.minimum:,.10g} to {limit.maximum:,.10g}"
    unit = "characters" if bare is str else "items"
    if limit.minimum == 0:
        return f"at most {limit.maximum:,} {unit}"
    return f"{limit.minimum:,} to {limit.maximum:,} {unit}"


def _default_words(default: object) -> str:
    if default is attrs.NOTHING:
        return "required"
    if hasattr(default, "factory"):
        # An attrs.Factory, which has no type that mypy knows.
        default = default.factory()
    if default is None or default in ((), {}):
        return ""
    # An object's fields have defaults of their own.
    return "{}" if attrs.has(type(default)) else json.dumps(default)


def _parts_of(kind: Any) -> tuple[tuple[Any, ...], Any]:
    """What stands beside the type in `Annotated`, and the type; None as an alternative is left out."""
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    if get_origin(kind) in (Union, types.UnionType) and len(arms) == 1:
        (kind,) = arms
    if get_origin(kind) is not Annotated:
        return (), kind
    bare, *extras = get_args(kind)
    return tuple(extras), bare
