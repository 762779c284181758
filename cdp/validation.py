"""From JSON and from texts to frozen values, and a fault for everything that does not fit.

One converter serves request bodies, settings, query parameters and the command line. cattrs coerces by default (12 from
"12", true from "maybe"): these hooks do not. It knows the types of `options`, and learns others from who uses it.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import cattrs.gen
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote

from . import emulation
from .network import check_header, check_header_value, cookie_faults, credentials_of, parse_cookies, parse_url
from .options import (
    MAX_GLOB_CHARS,
    MAX_TEXT,
    Action,
    CaptureOptions,
    Cookie,
    Length,
    OneOrMore,
    PageOptions,
    Range,
    Viewport,
    WaitFor,
)

T = TypeVar("T")

# How many faults of one value are told, and how much of a client's own text a message repeats.
MAX_FAULTS = 50
MAX_ECHO = 100


@attrs.frozen
class Fault:
    """One thing wrong with a value: its dotted name and a sentence about it."""

    field: str
    message: str


class ValidationError(Exception):
    """A value that cannot be accepted; every fault is named, up to `MAX_FAULTS`."""

    def __init__(self, faults: list[Fault], code: str = "invalid_request") -> None:
        self.faults = faults[:MAX_FAULTS]
        self.code = code
        super().__init__("; ".join(f"{f.field}: {f.message}" if f.field else f.message for f in self.faults))


def kind_of(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def strict(value: object, wanted: str, accepted: tuple[type, ...]) -> Any:
    """The value, of exactly one of the types; raises ValueError saying what is wanted."""
    if type(value) not in accepted:
        raise ValueError(f"must be {wanted}, not {kind_of(value)}")
    return value


def _text(value: object, _: Any) -> str:
    text: str = strict(value, "a text", (str,))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair, which is no character") from None
    if "\0" in text:
        raise ValueError("has a NUL character")
    return text


def _number(value: object, _: Any) -> float:
    try:
        number = float(strict(value, "a number", (int, float)))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def _choice(value: object, kind: Any) -> Any:
    choices = get_args(kind)
    names = [choice if isinstance(choice, str) else json.dumps(choice) for choice in choices]
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError("must be " + " or ".join(names) if len(names) < 3 else f"must be one of {', '.join(names)}")
    return value


def _limited(kind: Any) -> Callable[[object, Any], Any]:
    """A hook for `Annotated[T, Range(...), Length(...)]`."""
    base, *extras = get_args(kind)
    hook = converter.get_structure_hook(base)
    limits = [extra for extra in extras if isinstance(extra, Range | Length)]
    one_or_more = OneOrMore() in extras
    or_object = ", or an object" if any(attrs.has(extra) for extra in extras if isinstance(extra, type)) else ""

    def structure(value: object, _: Any) -> Any:
        if one_or_more and isinstance(value, str):
            value = [value]
        if isinstance(value, list | dict):
            # Before the items: a hostile list may have a million.
            for limit in limits:
                if isinstance(limit, Length):
                    limit.check(value)
        try:
            result = hook(value, base)
        except ValueError as error:
            raise ValueError(f"{error}{or_object}") from None
        for limit in limits:
            limit.check(result)
        return result

    return structure


def _object(cls: type) -> Callable[[object, Any], Any]:
    fields: Callable[[Any, Any], Any] = cattrs.gen.make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True
    )

    def structure(value: object, _: Any) -> Any:
        return fields(strict(value, "an object", (dict,)), cls)

    return structure


def _waits(value: object, _: Any) -> tuple[WaitFor, ...]:
    """A selector, an object, or a list of both."""
    items = value if isinstance(value, list) else [value]
    full = [{"selector": item} if isinstance(item, str) else item for item in items]
    return tuple(converter.structure(full, list[WaitFor]))


def _cookies(value: object, _: Any) -> tuple[Cookie, ...]:
    """A list of objects, or a `"a=b; c=d"` text."""
    items = parse_cookies(_text(value, str)) if isinstance(value, str) else strict(value, "a list or a text", (list,))
    return tuple(converter.structure(items, list[Cookie]))


def _headers(value: object, _: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    faults: list[Fault] = []
    for name, content in strict(value, "an object", (dict,)).items():
        try:
            check_header(name, _text(content, str))
            headers[name] = content
        except ValueError as error:
            faults.append(Fault(name[:MAX_ECHO], str(error)))
    if faults:
        raise ValidationError(faults)
    return headers


def _items(value: object, kind: Any) -> tuple[Any, ...]:
    list_of: Any = list
    return tuple(converter.structure(strict(value, "a list", (list,)), list_of[get_args(kind)[0]]))


# Names that other services' clients use, of types of actions and of their fields.
ACTION_ALIASES = {"write": "type", "executeJavascript": "evaluate"}
FIELD_ALIASES = {"milliseconds": "ms"}
_ACTIONS: dict[str, type] = {}
for _class in get_args(Action):
    attrs.resolve_types(_class)
    _ACTIONS |= dict.fromkeys(get_args(attrs.fields(_class).type.type), _class)


def _action(value: object, _: Any) -> Action:
    given: dict[str, Any] = dict(strict(value, "an object", (dict,)))
    if "type" not in given:
        raise ValidationError([Fault("type", "is required")])
    name = given["type"]
    if isinstance(name, str):
        name = given["type"] = ACTION_ALIASES.get(name, name)
    if not isinstance(name, str) or name not in _ACTIONS:
        hint = nearest(name[:MAX_ECHO], _ACTIONS) if isinstance(name, str) else ""
        raise ValidationError([Fault("type", f"must be one of {', '.join(_ACTIONS)}{hint}")])
    action: Action = converter.structure(
        {FIELD_ALIASES.get(field, field): content for field, content in given.items()}, _ACTIONS[name]
    )
    return action


def _alternative(kind: Any) -> Callable[[object, Any], Any]:
    """A hook for `X | C`, where C is an object: whatever is no object is meant to be an X."""
    (other,), (cls,) = ([arm for arm in get_args(kind) if attrs.has(arm) is found] for found in (False, True))

    def structure(value: object, _: Any) -> Any:
        return converter.structure(value, cls if isinstance(value, dict) else other)

    return structure


def _origin(kind: Any) -> Any:
    return get_origin(kind)


def _is_union(kind: Any) -> bool:
    # `X | None` is the second, or the first where X is `Annotated`.
    return _origin(kind) in (Union, types.UnionType)


converter = cattrs.Converter(forbid_extra_keys=True)
converter.register_structure_hook(str, _text)
converter.register_structure_hook(int, lambda value, _: strict(value, "an integer", (int,)))
converter.register_structure_hook(float, _number)
converter.register_structure_hook(bool, lambda value, _: strict(value, "true or false", (bool,)))
converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _choice)
converter.register_structure_hook_factory(lambda kind: _origin(kind) is Annotated, _limited)
converter.register_structure_hook_factory(attrs.has, _object)
converter.register_structure_hook_func(lambda kind: _origin(kind) is tuple, _items)
converter.register_structure_hook_func(lambda kind: kind == tuple[WaitFor, ...], _waits)
converter.register_structure_hook_func(lambda kind: kind == Action, _action)
converter.register_structure_hook_factory(
    lambda kind: _is_union(kind) and len(get_args(kind)) == 2 and any(map(attrs.has, get_args(kind))), _alternative
)
converter.register_structure_hook_func(lambda kind: kind == tuple[Cookie, ...], _cookies)
converter.register_structure_hook_func(lambda kind: kind == Mapping[str, str], _headers)


def structure(value: object, cls: type[T]) -> T:
    """The value of a class that JSON stands for; raises ValidationError with all faults."""
    try:
        return converter.structure(value, cls)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise ValidationError(faults_of(error)) from None


def valid_part(given: Mapping[str, object], cls: type[T]) -> T:
    """The value of those fields that are valid by themselves, so that what is between fields can be judged too."""
    known = fields_of(cls)
    good = {}
    for name, value in given.items():
        if name in known:
            with contextlib.suppress(ValidationError):
                structure({name: value}, cls)
                good[name] = value
    return structure(good, cls)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for a name that is close to a known one, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def faults_of(error: BaseException, path: str = "") -> list[Fault]:
    """The faults in what cattrs raised, with dotted names; order as in the class."""
    if isinstance(error, cattrs.BaseValidationError):
        faults: list[Fault] = []
        for inner in error.exceptions:
            # More are not told, and the hint of each takes its time.
            if len(faults) < MAX_FAULTS:
                faults += faults_of(inner, path + _step(inner, path))
        return faults
    if isinstance(error, ValidationError):
        return [Fault(f"{path}.{fault.field}" if path else fault.field, fault.message) for fault in error.faults]
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        names = [name[:MAX_ECHO] for name in sorted(error.extra_fields)[:MAX_FAULTS]]
        prefix = f"{path}." if path else ""
        return [Fault(prefix + name, f"unknown field{nearest(name, known)}") for name in names]
    if isinstance(error, KeyError):
        return [Fault(path, "is required")]
    return [Fault(path, str(error))]


def _step(error: BaseException, path: str) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]"
        if isinstance(note, AttributeValidationNote):
            return f".{note.name}" if path else note.name
    return ""


def bare_type(kind: Any) -> Any:
    """A field's type without `None` and without its limits."""
    if _is_union(kind):
        (kind,) = [part for part in get_args(kind) if part is not type(None)]
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def fields_of(cls: type) -> dict[str, Any]:
    """The fields of an attrs class and their resolved types, `Annotated` kept."""
    attrs.resolve_types(cls)
    return {field.name: field.type for field in attrs.fields(cls)}


def _told(field: str, check: Callable[[str], object], text: str | None) -> Iterator[Fault]:
    """The fault that a check raises as ValueError for a text."""
    if text is not None:
        try:
            check(text)
        except ValueError as error:
            yield Fault(field, str(error))


def _check_url(text: str) -> None:
    """Raise ValueError for a URL that cannot be opened, or whose credentials `auth` would not take."""
    for place, part in zip(("user name", "password"), credentials_of(parse_url(text)) or (), strict=False):
        try:
            Length(0, MAX_TEXT).check(_text(part, str))
        except ValueError as error:
            raise ValueError(f"its {place} {error}") from None


def page_faults(options: PageOptions, given: Mapping[str, object]) -> Iterator[Fault]:
    """Faults between the fields of a page; `given` holds what the client named, valid or not."""
    if given.get("url") is None and given.get("html") is None:
        yield Fault("url", "is required, or html")
    elif options.url is not None and options.html is not None:
        yield Fault("html", "cannot go with url: give one of them")
    if options.base_url is not None and given.get("html") is None:
        yield Fault("base_url", "goes with html only")
    yield from _told("url", _check_url, options.url)
    yield from _told("base_url", parse_url, options.base_url)
    yield from _told("user_agent", check_header_value, options.user_agent)
    page_url = options.url or options.base_url
    for index, cookie in enumerate(options.cookies):
        for field, message in cookie_faults(cookie):
            yield Fault(f"cookies[{index}].{field}", message)
        if cookie.url is None and cookie.domain is None and page_url is None:
            yield Fault(f"cookies[{index}]", "needs a domain: the document has no URL")
        yield from _told(f"cookies[{index}].url", parse_url, cookie.url)
    # (A position is told to secure origins only, which a document without a URL is not.)
    for field in ("headers", "auth", "referer", "geolocation"):
        if getattr(options, field) and page_url is None:
            yield Fault(field, "has no URL to go with: the document has none")
    yield from _told("referer", parse_url, options.referer)
    if (count := sum(map(len, options.block_urls))) > MAX_GLOB_CHARS:
        yield Fault("block_urls", f"has {count} characters in all, at most {MAX_GLOB_CHARS} are allowed")
    for field, message in emulation.faults(options):
        yield Fault(field, message)
    if not options.javascript:
        for field in ("js", "wait_for_expression"):
            if getattr(options, field):
                yield Fault(field, "contradicts javascript: false")


def capture_faults(options: CaptureOptions, viewport: Viewport, max_pixels: int) -> Iterator[Fault]:
    """Faults between the fields of a picture, and with the viewport it is made in."""
    areas = [name for name in ("full_page", "selector", "clip") if getattr(options, name)]
    if len(areas) > 1:
        yield Fault(areas[-1], f"cannot go with {' and '.join(areas[:-1])}: give one of them")
    if options.format == "png" and options.quality is not None:
        yield Fault("quality", "goes with jpeg and webp; png loses nothing")
    if options.format == "jpeg" and options.transparent:
        yield Fault("format", "jpeg has no transparency: ask for png or webp")
    if options.max_height is not None and not options.full_page:
        yield Fault("max_height", "goes with full_page")
    if options.padding and options.selector is None:
        yield Fault("padding", "goes with selector")
    if options.resize is not None:
        width, height = options.resize.width, options.resize.height
        if width is None and height is None:
            yield Fault("resize", "needs a width, a height or both")
        elif (width is None or height is None) and options.resize.fit != "inside":
            yield Fault("resize.fit", f"{options.resize.fit} needs both width and height")
    scale = viewport.device_scale_factor
    if min(viewport.width, viewport.height) * scale < 1:
        yield Fault("viewport", "makes a picture of no pixel: enlarge device_scale_factor")
    for name, area in (("viewport", viewport), ("clip", options.clip)):
        if area is not None and area.width * area.height * scale * scale > max_pixels:
            yield Fault(name, f"makes more than {max_pixels} pixels (--max-pixels)")


def load_json(body: bytes) -> Any:
    """The value of a JSON body; raises ValidationError for everything that is not one."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ValueError("an object has a member twice")
        return members

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse, object_pairs_hook=once)
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 at byte {error.start}"
    except RecursionError:
        message = "the body is nested too deeply"
    except ValueError as error:
        message = f"the body is not JSON: {str(error)[:MAX_ECHO]}"
    raise ValidationError([Fault("", message)])
