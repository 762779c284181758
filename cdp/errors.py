"""Every error of this package, classed by what the caller should do next.

    new browser   LaunchError, ConnectionClosed (on the browser's own socket)
    new page      SessionClosed, TargetCrashed
    give up       CommandError, TooLarge, InvalidOption, InvalidSelector, SelectorNotFound, ScriptError, ActionFailed,
                  NotAPage
    by policy     NavigationError (its `net_error` and `cause` say what went wrong)

Timeouts are not among them: the caller's cancel scope ends a wait.
"""

from __future__ import annotations


class CDPError(Exception):
    """Base of all errors of this package."""


class LaunchError(CDPError):
    """No browser was found, or it did not start; the message says what to do about it."""


class ConnectionClosed(CDPError):
    """The websocket to the browser is gone: the process ended or was killed."""


class SessionClosed(CDPError):
    """The websocket of one page is gone: its target or context was closed."""


class TargetCrashed(CDPError):
    """The renderer process of a page died."""


class CommandError(CDPError):
    """The browser refused a command.

    `code` is the JSON-RPC error number, `method` the command's name.
    """

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message}")
        self.method = method
        self.code = code
        self.message = message


class TooLarge(CDPError):
    """A picture, a document or a message is over its limit; the message names the limit."""


class InvalidOption(CDPError):
    """The browser does not take what the client asked for; the message has its words."""


class InvalidSelector(InvalidOption):
    """A selector does not parse."""


class SelectorNotFound(CDPError):
    """An element did not reach the state asked for, or has no box to be captured."""


class ScriptError(CDPError):
    """A script of the client's threw, or does not parse; the message has the page's words, cut to a sane length."""


class ActionFailed(CDPError):
    """A step that is not optional failed; `index` is its place in the list, from 0."""

    def __init__(self, index: int, kind: str, reason: str) -> None:
        super().__init__(f"action {index} ({kind}) failed: {reason}")
        self.index = index


class NotAPage(CDPError):
    """The URL gave no document: a download, or an answer without a body (204, 205).

    `content_type` is the MIME type or None, `size_bytes` the announced length or None.
    """

    def __init__(self, reason: str, content_type: str | None = None, size_bytes: int | None = None) -> None:
        known = [part for part in (content_type, None if size_bytes is None else f"{size_bytes} bytes") if part]
        super().__init__(f"not a page: {reason}" + (f" ({', '.join(known)})" if known else ""))
        self.content_type = content_type
        self.size_bytes = size_bytes


class NavigationError(CDPError):
    """The document could not be fetched.

    `net_error` is Chromium's name of the fault, such as `net::ERR_NAME_NOT_RESOLVED`; where Chromium only saw its
    proxy fail, the name is the one the egress door's ledger stands for. `blocked` is the reason when the door refused
    the address, else None. `detail` says more, where there is more to say.
    """

    def __init__(self, net_error: str, *, blocked: str | None = None, detail: str | None = None) -> None:
        super().__init__(blocked or f"navigation failed: {net_error}" + (f" ({detail})" if detail else ""))
        self.net_error = net_error
        self.blocked = blocked
