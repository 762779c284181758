"""docs/deployment.md: its nginx and Caddy configurations and its back-up run as they are written there.

Only what belongs to a machine is replaced: addresses, certificates, and where logs go.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

import cdp
from cdp.options import PageOptions
from cleariflow import LATE_CAPTURE_S, MAX_WAIT_S, Config
from tests.test_end_to_end import QUICK_S, Server, ended, open_server, run, submit
from tests.test_web_page import Person

DOCUMENT = Path(__file__).parent.parent / "docs" / "deployment.md"
NAME = "shots.example.com"
PREFIX = "/shots"
KEY = "cf_of-these-tests-and-no-other"
FOR_EVER = {"html": "<p>Waits</p>", "wait_for_expression": "false", "timeout_ms": 100_000}


def block(language: str) -> str:
    """The only code block of a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def replaced(text: str, places: dict[str, str]) -> str:
    """A configuration with other places; each must be there."""
    for former, new in places.items():
        assert former in text, former
        text = text.replace(former, new)
    return text


def program(name: str, package: str) -> str:
    """Where a program is."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"{name} is missing: apt-get install {package}"
    return found


@asynccontextmanager
async def open_proxy(command: Sequence[str], listens: Path | None = None, **given: Any) -> AsyncIterator[None]:
    """Run a proxy; where it makes its socket itself, until that is there."""
    process = await trio.lowlevel.open_process(command, **given)
    try:
        with trio.fail_after(QUICK_S):
            while listens is not None and not listens.exists():
                assert process.poll() is None
                await trio.sleep(0.01)
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def open_nginx(folder: Path, server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service behind the document's nginx."""
    authority = trustme.CA()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    issued = authority.issue_cert(NAME)
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        places = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            f"/etc/ssl/certs/{NAME}.pem": str(certificate),
            f"/etc/ssl/private/{NAME}.key": str(key),
            "/var/log/nginx/cleariflow.log": str(folder / "access.log"),
            "http://127.0.0.1:8000": server.url,
        }
        temporary = "".join(
            f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        settings = folder / "nginx.conf"
        settings.write_text(
            f"daemon off; user root; pid {folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ {temporary}\n{replaced(block('nginx'), places)} }}"
        )
        command = [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(settings), "-e", "stderr"]
        # As nginx hands its sockets on to a newer nginx: no other process can take the port.
        environ = {**os.environ, "NGINX": f"{listener.fileno()};"}
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with (
            open_proxy(command, env=environ, pass_fds=[listener.fileno()]),
            httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{port}{PREFIX}",
                headers={"Host": NAME, "X-API-Key": KEY},
                verify=context,
                timeout=QUICK_S,
                trust_env=False,
                event_hooks={"request": [name_server]},
            ) as client,
        ):
            yield client


async def name_server(request: httpx.Request) -> None:
    """Ask for the certificate of the name."""
    request.extensions["sni_hostname"] = NAME


async def use(client: httpx.AsyncClient) -> None:
    """What must work behind a proxy under a prefix."""
    answer = await client.post("/screenshot/v1/jobs", json={"request": FOR_EVER})
    assert (answer.status_code, answer.headers["location"].rpartition("/")[0]) == (202, f"{PREFIX}/v1/jobs")
    job_id = answer.json()["job_id"]
    told: list[str] = []
    with trio.fail_after(QUICK_S):
        async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line[6:])["status"])
                    if told[-1] == "running":
                        # Nothing was held back until the end, which only this brings.
                        await client.delete(f"/v1/jobs/{job_id}")
    assert told[-1] == "failed"
    assert (await client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "end"})).status_code == 204
    assert (await run(client, "scrape", html="<p>Text", outputs=["text"]))["text"] == "Text"
    assert (await client.get("/livez")).json() == {"ok": True}
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for prefix in ("", "/screenshot", "/scrape"):
        assert (await client.get(f"{prefix}/metrics")).status_code == 403


async def look(page: cdp.Page, url: str) -> None:
    """The page for people gets its events, with the key in their query."""
    person = Person(page)
    await page.prepare(PageOptions(ignore_tls_errors=True))
    await page.navigate(url)
    await person.until("document.querySelector('dialog').open")
    await person.type(None, KEY)
    await person.press("Enter")
    await person.sees("Live", "#live")


@pytest.mark.slow
async def test_nginx_of_the_document_serves_all_and_logs_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: cdp.Page
) -> None:
    monkeypatch.setenv("CLEARIFLOW_API_KEY", KEY)
    async with open_server(tmp_path / "data", "--root-path", PREFIX, "--workers", "1") as server:
        async with open_nginx(tmp_path, server) as client:
            await use(client)
            assert (await client.post("/v1/scrape", json={"html": "x" * 5 * 2**20})).status_code == 413
            assert (await client.get("/v1/jobs", params={"api_key": KEY})).status_code == 200
            await look(page, str(client.base_url))
    log = (tmp_path / "access.log").read_text()
    assert '"GET /shots/v1/jobs"' in log
    assert KEY not in log


def test_nginx_of_the_document_waits_long_enough() -> None:
    found = re.search(r"proxy_read_timeout (\d+)s;", block("nginx"))
    assert found is not None
    # A synchronous call waits for a worker as long as it may run.
    assert float(found[1]) > max(MAX_WAIT_S, 2 * Config().max_timeout + LATE_CAPTURE_S)


def test_proxies_of_the_document_take_what_the_service_takes() -> None:
    limits = re.findall(r"client_max_body_size (\d+)m;|max_size (\d+)MiB", block("nginx") + block("caddy"))
    assert [int("".join(found)) * 2**20 for found in limits] == [Config().max_body] * 2


@pytest.mark.slow
async def test_caddy_of_the_document_serves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARIFLOW_API_KEY", KEY)
    door = tmp_path / "caddy.socket"
    async with open_server(tmp_path / "data", "--root-path", PREFIX, "--workers", "1") as server:
        places = {f"{NAME} {{": f"http://{NAME} {{\nbind unix/{door}", "127.0.0.1:8000": server.url}
        settings = tmp_path / "Caddyfile"
        settings.write_text("{\nadmin off\n}\n" + replaced(block("caddy"), places))
        command = [program("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(settings)]
        environ = {**os.environ, "HOME": str(tmp_path)}
        async with (
            open_proxy(command, door, env=environ, stderr=subprocess.DEVNULL),
            httpx.AsyncClient(
                base_url=f"http://{NAME}{PREFIX}",
                headers={"X-API-Key": KEY},
                transport=httpx.AsyncHTTPTransport(uds=str(door)),
                timeout=QUICK_S,
            ) as client,
        ):
            await use(client)


async def test_backup_of_the_document_opens(tmp_path: Path) -> None:
    """Of a service that runs: a result is there, and what was queued runs."""
    script = re.search(r"```sh\n(mkdir -p backup\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert script is not None
    async with open_server(tmp_path / "cleariflow-data", "--workers", "1") as server, server.client() as client:
        done = await submit(client, "scrape", html="<p>Kept", outputs=["text"])
        await ended(client, done)
        held = await submit(client, "screenshot", **FOR_EVER)
        queued = await submit(client, "scrape", html="<p>Made later", outputs=["text"])
        await trio.run_process(["bash", "-euc", script[1]], cwd=tmp_path)
        await client.delete(f"/v1/jobs/{held}")
    async with open_server(tmp_path / "backup", "--workers", "1") as server, server.client() as client:
        await client.delete(f"/v1/jobs/{held}")
        assert (await client.get(f"/v1/jobs/{done}/result")).text == "Kept"
        assert (await ended(client, queued))["result"]["text"] == "Made later"
