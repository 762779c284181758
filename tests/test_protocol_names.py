"""Every literal name of the protocol in cdp/ against the running browser's own schema (`/json/protocol`).

Commands and events are string literals `Domain.name`; parameters are the keywords of `send` and `post`, and the
dictionaries beside a command's name, also those that a function builds up in a variable. Other keys that cdp/ reads or
writes must at least be the name of something in the schema.
"""

from __future__ import annotations

import ast
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import cdp

SOURCES = sorted(Path(cdp.__file__).parent.glob("*.py"))
NAME = re.compile(r"[A-Z][A-Za-z]+\.[a-z][A-Za-z]*")
PROTOCOL_MODULES = ("page.py", "browser.py", "capture.py", "interception.py", "emulation.py", "frame.py")
"""Whose dictionary keys are the protocol's."""
FOREIGN_KEYS = {"content-length", "missing", "moved", "changed"}
"""An HTTP header, and results of our own scripts."""
KNOWN_COMMANDS = {
    "Page.navigate",
    "Page.captureScreenshot",
    "Target.createTarget",
    "Fetch.enable",
    "Page.createIsolatedWorld",
}


@attrs.frozen
class Schema:
    """What the browser offers."""

    commands: dict[str, dict[str, Any]]
    events: dict[str, dict[str, Any]]
    types: dict[str, dict[str, Any]]
    words: frozenset[str]
    """The names of all parameters, results and properties, and the values of all enumerations."""

    def choices(self, domain: str, parameter: dict[str, Any]) -> list[str] | None:
        """The values that a parameter may have, None when there are no fixed ones."""
        reference = parameter.get("$ref")
        if reference is not None:
            parameter = self.types[reference if "." in reference else f"{domain}.{reference}"]
        return parameter.get("enum")


def words_of(value: object) -> Iterator[str]:
    """The names and the enumerated values in a part of the schema, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield value["name"]
        yield from (one for one in value.get("enum", ()) if isinstance(one, str))
        for inner in value.values():
            yield from words_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from words_of(inner)


@pytest.fixture(scope="module")
def schema(browser_endpoint: str) -> Schema:
    connection = http.client.HTTPConnection(browser_endpoint.removeprefix("ws://").partition("/")[0], timeout=10)
    connection.request("GET", "/json/protocol")
    domains = json.loads(connection.getresponse().read())["domains"]
    connection.close()
    return Schema(
        commands={f"{domain['domain']}.{one['name']}": one for domain in domains for one in domain.get("commands", ())},
        events={f"{domain['domain']}.{one['name']}": one for domain in domains for one in domain.get("events", ())},
        types={f"{domain['domain']}.{one['id']}": one for domain in domains for one in domain.get("types", ())},
        words=frozenset(words_of(domains)),
    )


def text_of(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def built_up(function: ast.AST, name: str) -> dict[str, ast.expr]:
    """The keys that a function gives to one of its variables, in literals, and their values."""
    found: dict[str, ast.expr] = {}
    for node in ast.walk(function):
        value: ast.expr | None = None
        target: ast.expr | None = None
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            target, value = node.target, node.value
        if isinstance(target, ast.Name) and target.id == name and isinstance(value, ast.Dict):
            found |= entries(value)
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id == name:
            key = text_of(target.slice)
            if key is not None and value is not None:
                found[key] = value
    return found


def entries(node: ast.Dict) -> dict[str, ast.expr]:
    return {key: value for key, value in zip(map(text_of, node.keys), node.values, strict=True) if key is not None}


def uses(tree: ast.AST) -> Iterator[tuple[int, str, dict[str, ast.expr]]]:
    """Line, command and parameters of every command in a module, as far as they are literals."""
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)]:
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("send", "post")
            ):
                method = text_of(node.args[0]) if node.args else None
                if method is not None:
                    yield node.lineno, method, {word.arg: word.value for word in node.keywords if word.arg is not None}
            elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and NAME.fullmatch(text_of(node.elts[0]) or ""):
                params = node.elts[1]
                method = text_of(node.elts[0])
                assert method is not None
                if isinstance(params, ast.Dict):
                    yield node.lineno, method, entries(params)
                elif isinstance(params, ast.Name):
                    yield node.lineno, method, built_up(function, params.id)


def command_faults(source: str, schema: Schema) -> Iterator[str]:
    """What is wrong with the commands of a module."""
    for line, method, params in uses(ast.parse(source)):
        command = schema.commands.get(method)
        if command is None:
            yield f"line {line}: no command {method}"
            continue
        known = {parameter["name"]: parameter for parameter in command.get("parameters", ())}
        for name, value in params.items():
            if name not in known:
                yield f"line {line}: {method} has no parameter {name}"
                continue
            choices, given = schema.choices(method.partition(".")[0], known[name]), text_of(value)
            if choices is not None and given is not None and given not in choices:
                yield f"line {line}: {given} is no {name} of {method}"
        for name, parameter in known.items():
            if not parameter.get("optional") and name not in params:
                yield f"line {line}: {method} needs {name}"


def name_faults(source: str, schema: Schema) -> Iterator[str]:
    """Literals of a module that look like names of the protocol and are none."""
    tree = ast.parse(source)
    prefixes = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith"
    }
    for node in ast.walk(tree):
        name = text_of(node)
        if name is None or not NAME.fullmatch(name):
            continue
        known = schema.commands.keys() | schema.events.keys()
        if name not in known and not (id(node) in prefixes and any(one.startswith(name) for one in schema.events)):
            yield f"line {node.lineno}: no command or event {name}"


def key_faults(source: str, schema: Schema) -> Iterator[str]:
    """Keys of a module's dictionaries that name nothing in the schema."""
    for node in ast.walk(ast.parse(source)):
        keys: list[str | None] = []
        if isinstance(node, ast.Subscript):
            keys = [text_of(node.slice)]
        elif isinstance(node, ast.Dict):
            keys = [text_of(key) for key in node.keys]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            keys = [text_of(node.args[0])]
        for key in keys:
            if key is not None and key.isidentifier() and key not in schema.words | FOREIGN_KEYS | WAITS:
                yield f"line {node.lineno}: nothing is called {key}"


WAITS = {"auto", "load", "domcontentloaded", "networkidle", "commit"}
"""Keys of a table of our own."""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_protocol_commands_are_the_browser_s(source: Path, schema: Schema) -> None:
    assert list(command_faults(source.read_text(), schema)) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_protocol_names_are_the_browser_s(source: Path, schema: Schema) -> None:
    assert list(name_faults(source.read_text(), schema)) == []


@pytest.mark.parametrize(
    "source", [path for path in SOURCES if path.name in PROTOCOL_MODULES], ids=lambda path: path.name
)
def test_protocol_keys_are_the_browser_s(source: Path, schema: Schema) -> None:
    assert list(key_faults(source.read_text(), schema)) == []


def test_protocol_check_sees_the_commands_in_use() -> None:
    seen = {method for source in SOURCES for _, method, _ in uses(ast.parse(source.read_text()))}
    assert seen >= KNOWN_COMMANDS


def test_protocol_check_sees_parameters_that_a_function_builds_up() -> None:
    capture = next(source for source in SOURCES if source.name == "capture.py").read_text()
    (params,) = [params for _, method, params in uses(ast.parse(capture)) if method == "Page.captureScreenshot"]
    assert params.keys() == {"format", "optimizeForSpeed", "quality", "captureBeyondViewport", "clip"}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('await s.send("Page.navigat", url=u)', "no command Page.navigat"),
        ('await s.send("Page.navigate", uri=u, url=u)', "Page.navigate has no parameter uri"),
        ('await s.send("Page.navigate")', "Page.navigate needs url"),
        ('await s.post("Page.handleJavaScriptDialog", acept=True, accept=True)', "no parameter acept"),
        ('await s.send_all(("Page.enable", {}), ("Network.enable", {"maxBuffer": 0}))', "no parameter maxBuffer"),
        ('await s.send("Browser.setDownloadBehavior", behavior="denied")', "denied is no behavior"),
        ('x = {"hieght": 1}\n  c = ("Emulation.setVisibleSize", x)', "no parameter hieght"),
        ('x = {}\n  x["hieght"] = 1\n  c = ("Emulation.setVisibleSize", x)', "no parameter hieght"),
        ('x = {}\n  x |= {"hieght": 1}\n  c = ("Emulation.setVisibleSize", x)', "no parameter hieght"),
    ],
)
def test_protocol_check_finds_a_wrong_command(schema: Schema, body: str, fault: str) -> None:
    faults = "\n".join(command_faults(f"async def f(s, u):\n  {body}", schema))
    assert fault in faults


@pytest.mark.parametrize(
    "source", ['E = ("Page.livecycleEvent",)', 'a.startswith("Network.rx")', 's.subscribe("Pag.x")']
)
def test_protocol_check_finds_a_wrong_event(schema: Schema, source: str) -> None:
    assert len(list(name_faults(source, schema))) == 1


@pytest.mark.parametrize("source", ['p["laoderId"]', 'p.get("laoderId")', 'd = {"urlPatern": 1}'])
def test_protocol_check_finds_a_wrong_key(schema: Schema, source: str) -> None:
    assert len(list(key_faults(source, schema))) == 1
