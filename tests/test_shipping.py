"""What is shipped: metadata in step, one file, distributions, the container's image, the systemd unit.

The slow tests build from a copy of the checkout, and run what they built where nothing of the checkout is found. What
they need beside Python is installed by `make test-slow`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from PIL import Image

import cleariflow
from tests.site import RED, Site
from tests.test_end_to_end import QUICK_S, Server, open_command, picture, run

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A build fetches packages; the longest one is the image's.
BUILD_S = 600
LOOPBACK = ("--allow-network", "127.0.0.0/8")


def do(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def copy_checkout(folder: Path) -> Path:
    """A copy of the checkout without what tools left in it."""
    left = (".*_cache", "__pycache__", "build", "dist", "*.egg-info", "*.pyz", "cleariflow-data", ".coverage*")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", ".hypothesis", *left))
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout."""
    return copy_checkout(tmp_path_factory.mktemp("shipping") / "checkout")


def make_venv(folder: Path) -> Path:
    """The folder of the commands of a new environment without packages."""
    do(sys.executable, "-m", "venv", folder)
    return folder / "bin"


def open_shipped(folder: Path, *command: str | Path) -> AbstractAsyncContextManager[Server]:
    """Start a program that serves on a free port, in an empty folder and with an empty home."""
    home = folder / "home"
    home.mkdir()
    return open_command(
        [*map(str, command), "--port", "0", "--data-dir", str(folder / "data"), *LOOPBACK],
        folder / "data",
        end=signal.SIGTERM,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": tempfile.gettempdir()},
    )


async def check_service(client: httpx.AsyncClient, site: Site) -> None:
    """It captures a page in a browser and without one, and has the files that it needs for that and its own pages."""
    result = await run(client, "screenshot", url=site.url("/ok"), format="png", device="iPhone 15", block_ads=True)
    assert picture(result).getpixel((30, 30)) == RED
    assert "</html>" in (await run(client, "scrape", url=site.url("/ok"), render=False))["html"]
    page = await client.get("/")
    assert page.status_code == 200
    assert "</html>" in page.text
    assert (await client.get("/openapi.json")).json()["info"]["version"] == cleariflow.__version__
    docs = await client.get("/docs")
    assert docs.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"#]+)"', docs.text)
    assert assets
    for asset in assets:
        got = await client.get(str(docs.url.join(asset)))
        assert (got.status_code, bool(got.content)) == (200, True), asset


# ---- Metadata --------------------------------------------------------------------------------------------------------


def inline_metadata() -> dict[str, object]:
    """The `script` block at the head of cleariflow.py (PEP 723)."""
    text = (ROOT / "cleariflow.py").read_text()
    (block,) = re.findall(r"(?m)^# /// script\n((?:#(?: .*)?\n)+?)# ///$", text)
    return tomllib.loads(re.sub(r"(?m)^# ?", "", block))


def test_inline_metadata_is_the_project_s() -> None:
    assert inline_metadata() == {name: PROJECT[name] for name in ("requires-python", "dependencies")}


def test_image_is_given_all_that_a_wheel_is_made_of() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) /src/", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    names = sorted(name for line in copied for name in line.split())
    taken = (ROOT / ".containerignore").read_text().splitlines()
    assert names == sorted(name.removeprefix("!") for name in taken if name.startswith("!"))
    hook = (ROOT / "hatch_build.py").read_text()
    assert set(re.findall(r'"([^"/]+)": "cleariflow/', hook)) | {"cdp", PROJECT["readme"], "LICENSE"} <= set(names)


def test_files_beside_modules_are_read_out_of_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in [ROOT / "cleariflow.py", ROOT / "cleariflow.html", *(ROOT / "cdp").iterdir()]:
            if path.is_file():
                file.write(path, path.relative_to(ROOT))
    program = """
import sys
sys.path.insert(0, sys.argv[1])
import cleariflow
from cdp import blocking, devices
print(len(devices.names()), len(blocking._ad_hosts()), "</html>" in cleariflow.read_page("")[0], cleariflow.__file__)
"""
    told = do(sys.executable, "-c", program, archive, cwd=tmp_path).split()
    assert told[-1] == str(archive / "cleariflow.py")
    assert int(told[0]) > 10
    assert int(told[1]) > 100
    assert told[2] == "True"


# ---- One file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pyz(checkout: Path) -> Path:
    """`make pyz`."""
    do("make", "pyz", f"PYTHON={sys.executable}", cwd=checkout)
    return checkout / "cleariflow.pyz"


def isolated(pyz: Path) -> list[str]:
    """The command that runs it with the standard library and nothing else."""
    return [sys.executable, "-I", "-S", str(pyz)]


@pytest.mark.slow
async def test_one_file_serves_from_an_empty_folder(pyz: Path, tmp_path: Path, site: Site) -> None:
    alone = shutil.copy(pyz, tmp_path / "cleariflow.pyz")
    async with open_shipped(tmp_path, *isolated(alone)) as server, server.client() as client:
        await check_service(client, site)
        assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.slow
def test_one_file_is_the_same_again(pyz: Path, tmp_path: Path) -> None:
    again = copy_checkout(tmp_path / "elsewhere")
    former = os.umask(0o077)
    try:
        do("make", "pyz", f"PYTHON={sys.executable}", cwd=again, TZ="Asia/Tokyo")
    finally:
        os.umask(former)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (pyz, again / "cleariflow.pyz")]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_one_file_has_no_compiled_parts_and_the_licences(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    assert [name for name in names if ".so" in Path(name).suffixes] == []
    packages = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    licensed = {name.partition("/")[0] for name in names if re.search(r"\.dist-info/.*(?i:licen[cs]e|copying)", name)}
    assert packages - licensed == set()


@pytest.mark.slow
def test_one_file_trusts_the_public_authorities(pyz: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import certifi, ssl;"
        "print(len(ssl.create_default_context(cafile=certifi.where()).get_ca_certs()))"
    )
    assert int(do(sys.executable, "-I", "-S", "-c", program, pyz, cwd=tmp_path)) > 100


@pytest.mark.slow
def test_one_file_s_exit_code_is_the_program_s(pyz: Path, tmp_path: Path) -> None:
    done = subprocess.run([*isolated(pyz), "--port", "none"], cwd=tmp_path, capture_output=True, timeout=QUICK_S)
    assert (done.returncode, b"--port" in done.stderr) == (2, True)


# ---- Distributions ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("dist")
    do(sys.executable, "-m", "build", "--outdir", folder, checkout)
    return folder


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"])
def installed(request: pytest.FixtureRequest, distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment into which a distribution was installed."""
    (file,) = distributions.glob(request.param)
    commands = make_venv(tmp_path_factory.mktemp("installed"))
    do(commands / "python", "-m", "pip", "install", "--quiet", file)
    return commands


def test_checkout_tells_its_version(tmp_path: Path) -> None:
    told = do(sys.executable, ROOT / "cleariflow.py", "--version", cwd=tmp_path)
    assert told == f"cleariflow {cleariflow.__version__}\n"


@pytest.mark.slow
def test_shipped_versions_are_the_checkout_s(pyz: Path, installed: Path, tmp_path: Path) -> None:
    told = f"cleariflow {cleariflow.__version__}\n"
    assert do(installed / "cleariflow", "--version", cwd=tmp_path) == told
    assert do(*isolated(pyz), "--version", cwd=tmp_path) == told
    version = "import importlib.metadata as m; print('cleariflow', m.version('cleariflow'))"
    assert do(installed / "python", "-c", version, cwd=tmp_path) == told


@pytest.mark.slow
async def test_installed_service_serves(installed: Path, tmp_path: Path, site: Site) -> None:
    assert "usage: cleariflow" in do(installed / "cleariflow", "--help", cwd=tmp_path)
    async with open_shipped(tmp_path, installed / "cleariflow") as server, server.client() as client:
        await check_service(client, site)


@pytest.mark.slow
def test_editable_install_is_the_checkout(checkout: Path, tmp_path: Path) -> None:
    commands = make_venv(tmp_path / "venv")
    do(commands / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--editable", checkout)
    find = "from importlib.util import find_spec as find; print(find('cleariflow').origin, find('cdp').origin)"
    expected = f"{checkout / 'cleariflow.py'} {checkout / 'cdp' / '__init__.py'}\n"
    assert do(commands / "python", "-c", find, cwd=tmp_path) == expected


USERS_PROGRAM = """
import cdp
import cleariflow


async def shoot(url: str) -> cleariflow.Job:
    config = cleariflow.load_config({"data_dir": "my-data"})
    async with cleariflow.open_service(config) as service:
        return await service.submit("screenshot", {"url": url})


async def width() -> int:
    async with cdp.open_browser() as browser, browser.open_page() as page:
        return (await page.screenshot()).width
"""
USERS_FAULTS = """
import cdp
import cleariflow

port: str = cleariflow.load_config({}).port
async def width(page: cdp.Page) -> str:
    return (await page.screenshot()).width
"""


@pytest.mark.slow
def test_types_reach_who_installs_the_wheel(distributions: Path, tmp_path: Path) -> None:
    commands = make_venv(tmp_path / "venv")
    (wheel,) = distributions.glob("*.whl")
    do(commands / "python", "-m", "pip", "install", "--quiet", wheel)
    (tmp_path / "right.py").write_text(USERS_PROGRAM)
    (tmp_path / "wrong.py").write_text(USERS_FAULTS)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(commands / "python")]
    do(*mypy, "right.py", cwd=tmp_path)
    done = subprocess.run([*mypy, "wrong.py"], cwd=tmp_path, capture_output=True, text=True, timeout=BUILD_S)
    found = re.findall(r"wrong\.py:(\d+): error: .*\[(.+)\]", done.stdout)
    assert found == [("5", "assignment"), ("7", "return-value")]


@pytest.mark.slow
def test_uv_runs_the_checkout(checkout: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.png"
    capture = ["screenshot", "--html", f'<body style="background: rgb{RED}">', "-o", str(target)]
    found = {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    do(sys.executable, "-m", "uv", "run", checkout / "cleariflow.py", *capture, cwd=tmp_path, **found)
    assert Image.open(target).convert("RGB").getpixel((5, 5)) == RED


# ---- Container -------------------------------------------------------------------------------------------------------

IMAGE = "localhost/cleariflow"
SUITE = "bookworm"


class Engine:
    """podman and buildah with a storage of their own."""

    def __init__(self, folder: Path) -> None:
        # No systemd, no cgroups of version 2: what runs where this test does.
        self._storage = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._podman = ["podman", *self._storage, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]

    def podman_command(self, *arguments: str | Path) -> list[str]:
        return [*self._podman, *map(str, arguments)]

    def podman(self, *arguments: str | Path) -> str:
        return do(*self.podman_command(*arguments))

    def buildah(self, *arguments: str | Path) -> str:
        return do("buildah", *self._storage, *arguments)

    def run_command(self, *arguments: str | Path) -> list[str]:
        """The command that runs a container; it shares the network, and its limits are no higher than ours."""
        limits = ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096"]
        return self.podman_command("run", "--network", "host", *limits, *arguments)

    def run(self, *arguments: str | Path) -> str:
        return do(*self.run_command(*arguments))


def make_base(folder: Path) -> None:
    """What the image's base has: a Debian without anything, from the mirror that this machine's apt uses."""
    do("debootstrap", "--variant=minbase", SUITE, folder)
    shutil.rmtree(folder / "var/cache/apt/archives")
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if sources.exists() and SUITE in sources.read_text():
        shutil.copy(sources, folder / "etc/apt/sources.list.d")
        (folder / "etc/apt/sources.list").unlink()
    # A proxy may stand before the package registries.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder / "usr/local/share/host-authorities.pem")
    (folder / "etc/pip.conf").write_text("[global]\ncert = /usr/local/share/host-authorities.pem\n")


@pytest.fixture(scope="module")
def engine(checkout: Path) -> Iterator[Engine]:
    """What has the image, built without any image registry."""
    if os.getuid() != 0:
        pytest.skip("debootstrap and containers of their own need root")
    # Not below pytest's folder: podman takes no long paths, and pytest would keep it.
    folder = Path(tempfile.mkdtemp(prefix="cleariflow-image-", dir="/tmp"))
    engine = Engine(folder)
    try:
        make_base(folder / "base")
        do("tar", "-C", folder / "base", "-cf", folder / "base.tar", ".")
        engine.podman("import", folder / "base.tar", f"docker.io/library/debian:{SUITE}-slim")
        build = ["--isolation", "chroot", "--network", "host", "--format", "docker"]
        engine.buildah("bud", *build, "-t", IMAGE, "-f", checkout / "Containerfile", checkout)
        yield engine
    finally:
        engine.podman("rm", "--all", "--force", "--time", "0")
        engine.podman("rmi", "--all", "--force")
        for mounted in folder.glob("root/*"):
            subprocess.run(["umount", "--quiet", "--lazy", mounted], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


# The flags that SECURITY.md names.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--security-opt", "no-new-privileges"),
    *("--cap-drop", "all", "--cap-add", "sys_chroot"),
)
CAP_SYS_CHROOT = 18
VOLUME = ("--volume", "cleariflow-data:/data")


@pytest.fixture(scope="module")
def container(engine: Engine) -> tuple[str, str]:
    """A hardened container that serves, and a key that was made for it: its URL and the key."""
    key = engine.run("--rm", *HARDENED, *VOLUME, IMAGE, "keys", "add", "me").strip()
    port = free_port()
    served = [*HARDENED, *VOLUME, "--env", f"CLEARIFLOW_PORT={port}", IMAGE, *LOOPBACK]
    engine.run("--detach", "--name", "serving", *served)
    # It ends with the container.
    follow = engine.podman_command("logs", "--follow", "serving")
    with subprocess.Popen(follow, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as log:
        assert log.stderr is not None
        told: list[str] = []
        while not told or "listening on" not in told[-1]:
            told += [log.stderr.readline()]
            assert told[-1], "".join(told)
        log.terminate()
    return f"http://127.0.0.1:{port}", key


@pytest.fixture
async def client(container: tuple[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the key."""
    url, key = container
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=QUICK_S, trust_env=False) as client:
        yield client


def tiles(image: Image.Image, count: int) -> Sequence[Image.Image]:
    """The squares of a strip."""
    side = image.width // count
    return [image.crop((side * index, 0, side * (index + 1), side)) for index in range(count)]


@pytest.mark.slow
def test_image_refuses_to_serve_without_a_key_and_says_how_to_set_one(engine: Engine) -> None:
    done = subprocess.run(engine.run_command("--rm", IMAGE), capture_output=True, text=True, timeout=QUICK_S)
    assert done.returncode == 2
    assert all(way in done.stderr for way in ("CLEARIFLOW_API_KEY", "/data", "keys add NAME", "--open"))
    assert "Traceback" not in done.stderr


@pytest.mark.slow
async def test_image_serves(client: httpx.AsyncClient, site: Site) -> None:
    await check_service(client, site)


@pytest.mark.slow
async def test_image_wants_the_key(container: tuple[str, str], client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    answer = await client.post("/screenshot/v1/jobs", json={"request": {"html": "x"}})
    assert answer.status_code == 401


@pytest.mark.slow
async def test_image_has_fonts_for_latin_cjk_and_emoji(client: httpx.AsyncClient) -> None:
    letters = ["g", "日", "本", "한", "か", "😀"]
    style = "position: absolute; top: 0; width: 100px; height: 100px; font: 60px sans-serif"
    html = "".join(f'<div style="{style}; left: {100 * at}px">{letter}</div>' for at, letter in enumerate(letters))
    viewport = {"width": 100 * len(letters), "height": 100}
    made = tiles(picture(await run(client, "screenshot", html=html, format="png", viewport=viewport)), len(letters))
    # Letters that no font has are boxes, all alike.
    assert len({tile.tobytes() for tile in made}) == len(letters)
    colours = [[colour for _, colour in tile.getcolors(maxcolors=100 * 100)] for tile in made]
    grey = [all(red == green == blue for red, green, blue in found) for found in colours]
    assert grey == [True] * (len(letters) - 1) + [False]


@pytest.mark.slow
def test_image_s_health_check_succeeds(engine: Engine, container: tuple[str, str]) -> None:
    engine.podman("healthcheck", "run", "serving")


@pytest.mark.slow
def test_image_s_health_check_fails_where_nothing_listens(engine: Engine, container: tuple[str, str]) -> None:
    kind, *command = json.loads(engine.podman("inspect", "--type", "image", IMAGE))[0]["Healthcheck"]["Test"]
    assert kind == "CMD"
    with pytest.raises(AssertionError, match="refused"):
        engine.podman("exec", "--env", "CLEARIFLOW_PORT=1", "serving", *command)


@pytest.mark.slow
def test_image_runs_as_a_user_with_no_more_rights_than_given_below_an_init(
    engine: Engine, container: tuple[str, str]
) -> None:
    status = engine.podman("exec", "serving", "cat", "/proc/1/comm", "/proc/1/status")
    assert status.startswith("tini\n")
    assert re.search(r"^Uid:\s+10001\s", status, re.MULTILINE)
    (capabilities,) = re.findall(r"^CapPrm:\s+(\w+)$", status, re.MULTILINE)
    assert int(capabilities, 16) & ~(1 << CAP_SYS_CHROOT) == 0


@pytest.mark.slow
def test_image_s_root_was_read_only(engine: Engine, container: tuple[str, str]) -> None:
    with pytest.raises(AssertionError, match="Read-only file system"):
        engine.podman("exec", "--user", "root", "serving", "touch", "/opt/cleariflow/new")


@pytest.mark.slow
def test_image_s_pages_are_in_the_sandbox(engine: Engine, container: tuple[str, str]) -> None:
    command = engine.podman_command("logs", "serving")
    log = subprocess.run(command, capture_output=True, text=True, timeout=QUICK_S).stderr
    assert "listening on" in log
    assert "sandbox" not in log


@pytest.mark.slow
def test_image_has_what_the_doctor_looks_for(engine: Engine, container: tuple[str, str]) -> None:
    lines = engine.podman("exec", "serving", "cleariflow", "doctor").splitlines()
    found = [line.split()[:2] for line in lines]
    assert {state for state, *subject in found if subject in (["fonts"], ["sandbox"], ["picture"])} == {"ok"}
    assert "error" not in {state for state, *_ in found}


@pytest.mark.slow
def test_image_s_service_ends_in_peace(engine: Engine, container: tuple[str, str]) -> None:
    engine.podman("stop", "--time", "30", "serving")
    assert engine.podman("inspect", "--format", "{{.State.ExitCode}}", "serving").strip() == "0"


# ---- systemd ---------------------------------------------------------------------------------------------------------

# Of 10; what it needs above 0 is told in the unit.
EXPOSURE = 2.5


@pytest.mark.slow
def test_unit_has_no_faults_and_is_closed(tmp_path: Path) -> None:
    unit = tmp_path / "cleariflow.service"
    text = (ROOT / "docs" / "cleariflow.service").read_text()
    unit.write_text(re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=QUICK_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    do("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", unit)


# The image with systemd as its init, as a host that the unit's head was followed on.
HOST = f"""
FROM {IMAGE}
USER root
RUN apt-get update && apt-get install -y --no-install-recommends systemd
RUN usermod --home /var/lib/cleariflow cleariflow
COPY docs/cleariflow.service /etc/systemd/system/
RUN systemctl enable cleariflow
ENTRYPOINT ["/lib/systemd/systemd"]
"""


@pytest.mark.slow
async def test_unit_serves_under_systemd(engine: Engine, checkout: Path, tmp_path: Path, site: Site) -> None:
    (tmp_path / "Containerfile").write_text(HOST)
    (tmp_path / "ignore").touch()
    build = ["--isolation", "chroot", "--network", "host", "--ignorefile", tmp_path / "ignore"]
    engine.buildah("bud", *build, "-t", "host", "-f", tmp_path / "Containerfile", checkout)
    port = free_port()
    (tmp_path / "settings").write_text(f"CLEARIFLOW_PORT={port}\nCLEARIFLOW_ALLOW_NETWORK=127.0.0.0/8\n")
    settings = f"{tmp_path / 'settings'}:/etc/cleariflow.env:ro"
    engine.run("--detach", "--name", "host", "--systemd=always", "--privileged", "--volume", settings, "host")
    systemctl = ["exec", "host", "systemctl"]
    # It comes up within seconds; each retry waits twice as long.
    patient = httpx.AsyncHTTPTransport(retries=8)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=patient, timeout=QUICK_S) as client:
        await check_service(client, site)
        status = engine.podman("exec", "host", "sh", "-c", "cat /proc/$(systemctl show -P MainPID cleariflow)/status")
    assert re.search(r"^Uid:\s+10001\s", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    engine.podman(*systemctl, "stop", "cleariflow")
    assert engine.podman(*systemctl, "show", "-P", "Result", "-P", "ExecMainStatus", "cleariflow") == "success\n0\n"
    log = engine.podman("exec", "host", "journalctl", "--no-pager", "-u", "cleariflow")
    assert "browser started" in log
    assert "sandbox" not in log
