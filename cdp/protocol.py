"""The Chrome DevTools Protocol's messages, without I/O.

A message is classed by its first bytes and parsed only by whom it concerns: a page can make the browser send events of
any size (40 MB `pushState`, 93 MB request events were seen on Chromium 156), and most of them have no reader.
"""

from __future__ import annotations

import json
import re
from typing import Any

import attrs

_EVENT = re.compile(r'\{"method":"([A-Za-z]+\.[A-Za-z]+)"')
_REPLY = re.compile(r'\{"id":([0-9]{1,10})[,}]')


@attrs.frozen
class Reply:
    """The answer to the command numbered `id`, not parsed yet."""

    id: int
    text: str

    def parse(self) -> dict[str, Any]:
        """The whole message: `{"id": ..., "result": {...}}` or `{"id": ..., "error": {"code", "message"}}`."""
        message: dict[str, Any] = json.loads(self.text)
        return message


@attrs.frozen
class Event:
    """An event, not parsed yet."""

    method: str
    text: str

    def params(self) -> dict[str, Any]:
        """The event's parameters; parsed anew by each call."""
        params: dict[str, Any] = json.loads(self.text).get("params", {})
        return params


def encode(command_id: int, method: str, params: dict[str, Any]) -> str:
    """One command as the browser reads it; parameters that are None are left out."""
    given = {name: value for name, value in params.items() if value is not None}
    return json.dumps({"id": command_id, "method": method, "params": given}, separators=(",", ":"))


def decode(text: str) -> Reply | Event | None:
    """The message's class; None for one that is neither a reply nor an event.

    Chromium writes `id` or `method` first; any other order is parsed whole.
    """
    if found := _EVENT.match(text):
        return Event(found[1], text)
    if found := _REPLY.match(text):
        return Reply(int(found[1]), text)
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if isinstance(message.get("method"), str):
        return Event(message["method"], text)
    if type(message.get("id")) is int:
        return Reply(message["id"], text)
    return None
