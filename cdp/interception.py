"""What happens to a page's requests on their way (the Fetch domain): only those that something asks for are held up.

Headers and credentials for the own origin, blocking, the client's document in place of the server's, and the last good
document kept when the page moves on to a dead address.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import network
from .blocking import Rules
from .connection import Connection
from .egress import Ledger
from .options import Auth

EVENTS = ("Fetch.requestPaused", "Fetch.authRequired")


class Interception:
    """The held-up requests of one page; `warn` takes sentences for the client."""

    def __init__(self, session: Connection, frame_id: str, ledger: Ledger, warn: Callable[[str], None]) -> None:
        self._session = session
        self._frame_id = frame_id
        self._ledger = ledger
        self._warn = warn
        self._origin: str | None = None
        self._headers: dict[str, str] = {}
        self._auth: Auth | None = None
        # Requests that were given the credentials: asked again, they were wrong.
        self._authenticated: set[str] = set()
        self._rules = Rules()
        # The base64 body that stands in for the server's answer, once.
        self._content: str | None = None
        # While the client's own navigation is under way: why it failed, once it did.
        self._own_failure: list[str] | None = None
        # The page may not leave its document any more.
        self._stay = False
        # A document is there; it is kept when the page moves on to an address that fails.
        self._keep = False

    def add_to_origin(self, origin: str, headers: dict[str, str], auth: Auth | None) -> None:
        """Requests to this origin carry the headers, and it gets the credentials when it asks for some."""
        self._origin, self._headers, self._auth = origin, headers, auth

    def block(self, rules: Rules) -> None:
        """Requests that the rules name are not made."""
        self._rules = rules

    def answer_with(self, html: str) -> None:
        """The next document of the main frame is this one, whatever its server has."""
        self._content = b64encode(html.encode(errors="replace")).decode()

    def keep_document(self) -> None:
        """From now on a document that fails to come leaves the one shown."""
        self._keep = True

    def stay(self) -> None:
        """From now on the page goes nowhere by itself."""
        self._stay = True

    @contextmanager
    def own_navigation(self) -> Iterator[list[str]]:
        """While the page is sent somewhere by us: a failure on the way is no news to tell, but goes into the list."""
        failures: list[str] = []
        self._own_failure = failures
        try:
            yield failures
        finally:
            self._own_failure = None

    def commands(self) -> list[tuple[str, dict[str, Any]]]:
        """What makes the browser hold up what is wanted now, in place of before; none while that is nothing."""
        document = {"urlPattern": "*", "resourceType": "Document"}
        patterns = self._rules.patterns()
        if self._content is not None or self._stay:
            # By type, not by URL: the browser writes paths its own way. The first document is the main frame's.
            patterns.append(document | {"requestStage": "Request"})
        if self._headers or self._auth:
            patterns.append({"urlPattern": network.url_pattern(f"{self._origin}/"), "requestStage": "Request"})
        if self._keep:
            patterns.append(document | {"requestStage": "Response"})
        if not patterns:
            return []
        return [("Fetch.enable", {"patterns": patterns, "handleAuthRequests": self._auth is not None})]

    async def handle(self, method: str, params: dict[str, Any]) -> None:
        """Let one held-up request go on, or answer or fail it."""
        if method == "Fetch.authRequired":
            await self._authenticate(params)
        elif "responseErrorReason" in params or "responseStatusCode" in params:
            await self._resume_response(params)
        else:
            await self._resume_request(params)

    async def _resume_request(self, params: dict[str, Any]) -> None:
        request, request_id = params["request"], params["requestId"]
        is_main = params["resourceType"] == "Document" and params["frameId"] == self._frame_id
        if not is_main and self._rules.blocks(params["resourceType"], request["url"], request["headers"]):
            await self._session.post("Fetch.failRequest", requestId=request_id, errorReason="BlockedByClient")
            return
        if is_main and self._stay and self._own_failure is None:
            await self._session.post("Fetch.failRequest", requestId=request_id, errorReason="Aborted")
            return
        if self._content is not None and is_main:
            body, self._content = self._content, None
            await self._session.post(
                "Fetch.fulfillRequest",
                requestId=request_id,
                responseCode=200,
                responseHeaders=[{"name": "Content-Type", "value": "text/html; charset=utf-8"}],
                body=body,
            )
            return
        own = self._headers and network.origin_of(request["url"]) == self._origin
        headers = network.merged_headers(request["headers"], self._headers) if own else None
        await self._session.post("Fetch.continueRequest", requestId=request_id, headers=headers)

    async def _resume_response(self, params: dict[str, Any]) -> None:
        """Let an answer pass; a document that failed to come is aborted, which keeps the one shown."""
        url, request_id = params["request"]["url"], params["requestId"]
        if params["frameId"] != self._frame_id or "responseErrorReason" not in params:
            await self._session.post("Fetch.continueRequest", requestId=request_id)
            return
        cause = self._ledger.failure_at(*network.endpoint_of(url))
        reason = cause.text if cause is not None else params["responseErrorReason"]
        if self._own_failure is not None:
            words = re.sub("(?<=[a-z])(?=[A-Z])", "_", params["responseErrorReason"])
            self._own_failure.append(f"net::ERR_{words.upper()}")
        else:
            self._warn(f"the page moved on to {url}, which failed: {reason}")
        await self._session.post("Fetch.failRequest", requestId=request_id, errorReason="Aborted")

    async def _authenticate(self, params: dict[str, Any]) -> None:
        request_id = params["requestId"]
        answer = {"response": "CancelAuth"}
        asked_by_server = params["authChallenge"].get("source") == "Server"
        own = asked_by_server and network.origin_of(params["authChallenge"]["origin"]) == self._origin
        if own and self._auth is not None and request_id not in self._authenticated:
            self._authenticated.add(request_id)
            answer = {
                "response": "ProvideCredentials",
                "username": self._auth.username,
                "password": self._auth.password,
            }
        await self._session.post("Fetch.continueWithAuth", requestId=request_id, authChallengeResponse=answer)
