"""JSON Schemas (2020-12) of the types that `validation` takes, from the same types, limits, defaults and texts.

A value that validation takes fits its schema. The other way round it is so as far as a schema can say: what is between
fields, and the grammar of URLs, selectors and keys, is left to validation.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from .network import HEADER_VALUE, TOKEN
from .options import Action, Cookie, Length, OneOrMore, Range, Step, WaitFor
from .validation import ACTION_ALIASES, FIELD_ALIASES, bare_type, fields_of

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
# `validation` takes no NUL characters.
TEXT: Schema = {"type": "string", "pattern": r"^[^\u0000]*$"}
_PLAIN: Mapping[Any, Schema] = {
    str: TEXT,
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    dict[str, Any]: {"type": "object"},
    Mapping[str, str]: {
        "type": "object",
        "propertyNames": {"pattern": f"^{TOKEN.pattern}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{HEADER_VALUE.pattern}$"},
    },
}
# `a=b; c=d`: between semicolons there is a pair, or nothing.
_PAIR = r"\s*(?:[^\s;=\u0000][^;=\u0000]*=[^;\u0000]*)?"
_COOKIES: Schema = {"type": "string", "pattern": f"^{_PAIR}(?:;{_PAIR})*$"}
_LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


def ref(name: str) -> Schema:
    """A component."""
    return {"$ref": f"#/components/schemas/{name}"}


def shape(given: Any) -> Schema:
    """A schema in short.

    A type (`string?`: or null), the name of another schema, `[X]` for a list of X, `[X, Y]` for one of several texts,
    `(X, Y)` for one of several schemas, or an object by its members, several in one text, of which `X?` may be missing.
    """
    match given:
        case dict():
            members = {name: shape(value) for names, value in given.items() for name in names.split()}
            properties = {name.removesuffix("?"): schema for name, schema in members.items()}
            required = [name for name in members if name in properties]
            return {"type": "object", "properties": properties, "required": required}
        case tuple():
            return {"anyOf": [shape(one) for one in given]}
        case [item]:
            return {"type": "array", "items": shape(item)}
        case list():
            return {"type": "string", "enum": given}
    if given[0].isupper():
        return ref(given)
    return {"type": [given[:-1], "null"] if given.endswith("?") else given}


class Schemas:
    """Makes schemas; those of classes are `components`, by the names of the classes, to which the others refer.

    `plain` has the schemas of types that are not known here; `ceilings` the limits of fields that have none.
    """

    def __init__(self, plain: Mapping[Any, Schema], *, ceilings: Mapping[str, int]) -> None:
        self.components: dict[str, Schema] = {}
        self._plain = {**_PLAIN, **plain}
        self._ceilings = ceilings

    def of(self, kind: Any) -> Schema:
        """What validation takes for a type."""
        arms = get_args(kind)
        if kind in self._plain:
            return dict(self._plain[kind])
        if attrs.has(kind):
            if kind.__name__ not in self.components:
                self.components[kind.__name__] = {}
                self.components[kind.__name__] |= self._object(kind)
            return ref(kind.__name__)
        if kind == Action:
            return self._action()
        if kind == tuple[WaitFor, ...]:
            one = [self.of(fields_of(WaitFor)["selector"]), self.of(WaitFor)]
            return _either(*one, {"type": "array", "items": _either(*one)})
        if kind == tuple[Cookie, ...]:
            return _either(_COOKIES, {"type": "array", "items": self.of(Cookie)})
        match get_origin(kind):
            case origin if origin is Annotated:
                return self._annotated(*arms)
            case origin if origin is Literal:
                return _choice(arms)
            case origin if origin is tuple:
                return {"type": "array", "items": self.of(arms[0])}
            case origin if origin in (Union, types.UnionType):
                return _either(*(NULL if arm is type(None) else self.of(arm) for arm in arms))
        raise TypeError(f"no schema is known for {kind}")

    def parameters(self, cls: type[attrs.AttrsInstance], prefix: str = "") -> Iterator[tuple[str, Schema]]:
        """Names and schemas of the texts of which `texts.nested` makes an object of a class."""
        properties = self._object(cls)["properties"]
        for name, kind in fields_of(cls).items():
            bare, schema = bare_type(kind), properties[name]
            if attrs.has(bare):
                yield from self.parameters(bare, f"{prefix}{name}.")
            elif get_origin(bare) is Literal or bare in (str, bool, int, float):
                # A text is not null, and an object beside the type has names of its own.
                arms = [arm for arm in schema.pop("anyOf", ()) if "$ref" not in arm and arm != NULL]
                if isinstance(schema.get("type"), list):
                    schema["type"] = schema["type"][0]
                yield prefix + name, schema | ({"anyOf": arms} if len(arms) > 1 else arms[0] if arms else {})
            else:
                hint = "words with commas" if "enum" in schema.get("items", ()) else "what is no text as JSON"
                yield prefix + name, {"type": "string", "description": f"{schema['description']}; {hint}"}

    def _annotated(self, base: Any, *extras: Any) -> Schema:
        schema = self.of(base)
        for extra in extras:
            if isinstance(extra, Range | Length):
                # Where a list may be given in another way, its limits are the list's.
                lists = [arm for arm in schema.get("anyOf", ()) if "items" in arm]
                for arm in lists or [schema]:
                    arm |= _limits(extra, arm["type"])
        if OneOrMore() in extras:
            schema = _either(schema["items"], schema)
        # Beside its type a field may take an object.
        schema = _either(schema, *(self.of(extra) for extra in extras if isinstance(extra, type)))
        for text in (extra for extra in extras if isinstance(extra, str)):
            schema["description"] = text
        return schema

    def _object(self, cls: type[attrs.AttrsInstance]) -> Schema:
        kinds = fields_of(cls)
        properties = {name: self.of(kind) for name, kind in kinds.items()}
        required = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]
        for field in attrs.fields(cls):
            # An attrs.Factory has no type that mypy knows; what is empty says nothing.
            default: Any = field.default.factory() if hasattr(field.default, "factory") else field.default
            if default is not attrs.NOTHING and default not in (None, (), {}):
                properties[field.name]["default"] = json.loads(json.dumps(default, default=attrs.asdict))
        for name in properties.keys() & self._ceilings.keys():
            properties[name].setdefault("maximum", self._ceilings[name])
            if properties[name].get("default", 0) > properties[name]["maximum"]:
                # It is refused: the client must give one.
                del properties[name]["default"]
        if issubclass(cls, Step):
            names = get_args(kinds["type"])
            properties["type"] = _choice(
                names + tuple(alias for alias, name in ACTION_ALIASES.items() if name in names)
            )
            for alias, name in FIELD_ALIASES.items():
                if name in kinds:
                    properties[alias] = properties[name] | {"description": f"the same as {name}"}
        return {
            "type": "object",
            "description": (cls.__doc__ or "").partition("\n")[0],
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }

    def _action(self) -> Schema:
        """One of the actions, told by its `type`."""
        if "Action" not in self.components:
            arms = {arm: self.of(arm)["$ref"] for arm in get_args(Action)}
            names = {
                name: ref
                for arm, ref in arms.items()
                for name in self.components[arm.__name__]["properties"]["type"]["enum"]
            }
            self.components["Action"] = {
                "description": "A step before the capture.",
                "oneOf": [{"$ref": ref} for ref in arms.values()],
                "discriminator": {"propertyName": "type", "mapping": names},
            }
        return ref("Action")


def _either(*arms: Schema) -> Schema:
    """What fits one of several schemas; the text of the first stands for all."""
    first = dict(arms[0])
    if len(arms) == 1:
        return first
    if NULL in arms and len(arms) == 2 and "type" in first and "enum" not in first:
        return first | {"type": [first["type"], "null"]}
    outside = {"description": first.pop("description")} if "description" in first else {}
    firsts = first["anyOf"] if first.keys() == {"anyOf"} else [first]
    return outside | {"anyOf": [*firsts, *arms[1:]]}


def _choice(values: tuple[Any, ...]) -> Schema:
    texts = {"type": "string", "enum": [value for value in values if isinstance(value, str)]}
    # (Who makes a client has no use for one list of both.)
    return {"anyOf": [{"type": "boolean"}, texts]} if True in values else texts


def _limits(limit: Range | Length, kind: str) -> Schema:
    if isinstance(limit, Range):
        limits = {"minimum": limit.minimum, "maximum": limit.maximum, "exclusiveMinimum": limit.above}
        return {name: value for name, value in limits.items() if value is not None}
    low, high = _LENGTHS[kind]
    least = {low: limit.minimum} if limit.minimum else {}
    return least | ({high: limit.maximum} if limit.maximum < Length().maximum else {})
