# make run     set up what serving needs, then serve on http://127.0.0.1:8000 (more flags: make run ARGS="--port 9000")
# make test    set up everything, then run the tests (make test ARGS="-k store"); make test-slow runs the slow ones
# make check   format, lint and types
# make bench   set up everything, then measure how fast it is (python -m bench; needs Node.js; make bench ARGS="--quick")
# make setup   only set up: .venv with all packages; Chromium and fonts by apt where they are missing
# make pyz     cleariflow.pyz: the service and all its packages in one file, for any Python 3.11 or later
# make dist    wheel and source distribution, in dist/
# make clean   remove .venv and what the tools leave behind

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := setup
.PHONY: setup run test test-slow check bench pyz dist clean system tools slow-tools

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

# The names that cdp/launcher.py looks for, in its order.
BROWSERS := chromium-headless-shell chrome-headless-shell headless_shell chromium chromium-browser google-chrome \
            google-chrome-stable
# Debian package = one of its files, by which it is known to be there.
FONTS := fonts-liberation=truetype/liberation*/LiberationSans-Regular.ttf \
         fonts-noto-core=truetype/noto/NotoSans-Regular.ttf \
         fonts-noto-cjk=opentype/noto/NotoSansCJK-Regular.ttc \
         fonts-noto-color-emoji=truetype/noto/NotoColorEmoji.ttf
# Debian package = its command: what tests run beside the service, and what only slow ones do (they build the image and
# run it, check the systemd unit, put proxies in front).
TOOLS := curl=curl
SLOW_TOOLS := buildah=buildah podman=podman runc=runc debootstrap=debootstrap systemd=systemd-analyze \
              nginx-light=nginx caddy=caddy

# Shell functions that the recipes below begin with. apt_install PACKAGE...: quiet when it works, all of apt's output
# when not; fails with what to do where there is no apt or no right to use it.
define APT
apt_as_root() {
    local sudo=()
    if [ "$$(id -u)" != 0 ]; then sudo=(sudo); fi
    "$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$$@" </dev/null
}
apt_install() {
    if ! command -v apt-get >/dev/null; then
        echo "error: missing: $$*; there is no apt-get here, please install them another way" >&2
        return 1
    fi
    if [ "$$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        echo "error: missing: $$*; run as root: apt-get install $$*" >&2
        return 1
    fi
    echo "apt: installing $$*"
    local log
    log=$$(mktemp)
    if ! { apt_as_root update && apt_as_root install --no-install-recommends "$$@"; } >"$$log" 2>&1; then
        cat "$$log" >&2
        rm -f "$$log"
        echo "error: apt could not install: $$*" >&2
        return 1
    fi
    rm -f "$$log"
}
# commands PACKAGE=COMMAND...: installs the packages whose command is missing; some commands are for root's PATH only.
commands() {
    local missing=() pair
    for pair in "$$@"; do
        if ! PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair#*=}" >/dev/null; then missing+=("$${pair%%=*}"); fi
    done
    if [ $${#missing[@]} != 0 ]; then apt_install "$${missing[@]}"; fi
}
endef

# Both in the environment: make takes the indentation of a recipe's lines away.
export ZIPAPP ZIPAPP_MAIN

# Arguments: folder, file. The standard library's zipapp, but the same bytes from the same files: sorted, without times
# and modes. Folders have entries: without them zipimport finds no package that has no __init__.py.
define ZIPAPP
import sys, zipfile
from pathlib import Path

folder, target = map(Path, sys.argv[1:])
with target.open("wb") as file:
    file.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_dir():
                archive.writestr(zipfile.ZipInfo(name + "/"), b"")
            else:
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
target.chmod(0o755)
endef

# What Python runs in it.
define ZIPAPP_MAIN
import sys

if sys.version_info < (3, 11):
    sys.exit("cleariflow: Python 3.11 or later is needed, this is %d.%d" % sys.version_info[:2])
import cleariflow

sys.exit(cleariflow.main())
endef

setup: system tools $(VENV)/.dev

run: system $(VENV)/.run
	@exec $(BIN)/python cleariflow.py $(ARGS)

test: setup
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

test-slow: setup slow-tools $(VENV)/.ship
	@$(BIN)/python -m pytest -m slow $(ARGS)

bench: system $(VENV)/.bench
	@$(BIN)/python -m bench $(ARGS)

# All three run, whichever fails.
check: $(VENV)/.dev
	@failed=()
	$(BIN)/ruff format --check . || failed+=("ruff format")
	$(BIN)/ruff check . || failed+=("ruff check")
	$(BIN)/mypy || failed+=("mypy")
	if [ $${#failed[@]} != 0 ]; then
		printf 'check failed: %s\n' "$${failed[@]}" >&2
		exit 1
	fi

# The versions that .venv has. Compiled parts are dropped: what has some works without. Byte code saves 1 s of each start
# of the Python that made it; another one reads the sources beside it.
pyz: $(VENV)/.run
	@rm -rf build/pyz
	mkdir -p build
	$(BIN)/python -m pip freeze --exclude-editable >build/versions.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint build/versions.txt \
		--target build/pyz .
	cd build/pyz
	rm -rf bin
	find . -name '*.so' -delete
	find . -type d '(' -name tests -o -name _tests ')' -prune -exec rm -rf {} +
	rm -f *.dist-info/{RECORD,WHEEL,INSTALLER,REQUESTED,direct_url.json}
	printf '%s\n' "$$ZIPAPP_MAIN" >__main__.py
	cd ../..
	PYTHONHASHSEED=0 $(BIN)/python -m compileall -q -b --invalidation-mode unchecked-hash \
		-s build/pyz -p cleariflow.pyz build/pyz
	$(BIN)/python -c "$$ZIPAPP" build/pyz cleariflow.pyz
	rm -rf build/pyz build/versions.txt
	ls -l cleariflow.pyz

dist: $(VENV)/.ship
	@$(BIN)/python -m build --outdir dist .

clean:
	@rm -rf $(VENV) build dist cleariflow.pyz *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A browser is a must; without a font only pictures of its letters differ. chromium-sandbox is 0.1 MB and the sandbox of
# users on systems that keep user namespaces from them.
system:
	@$(APT)
	browser=
	for name in $(BROWSERS); do
		if command -v "$$name" >/dev/null; then browser=$$name; break; fi
	done
	fonts=()
	for pair in $(foreach pair,$(FONTS),'$(pair)'); do
		if ! compgen -G "/usr/share/fonts/$${pair#*=}" >/dev/null; then fonts+=("$${pair%%=*}"); fi
	done
	if [ -z "$$browser" ]; then
		apt_install chromium-headless-shell chromium-sandbox "$${fonts[@]}" ||
			apt_install chromium chromium-sandbox "$${fonts[@]}"
	elif [ $${#fonts[@]} != 0 ]; then
		apt_install "$${fonts[@]}" || echo "warning: going on without them: some letters will be shown as boxes" >&2
	fi
	if ! command -v certutil >/dev/null; then
		apt_install libnss3-tools || echo "warning: going on without it: --ca-file needs it" >&2
	fi

tools:
	@$(APT)
	commands $(TOOLS)

slow-tools:
	@$(APT)
	commands $(SLOW_TOOLS)

# Debian splits venv from Python; Python itself may be missing, too.
$(BIN)/python:
	@$(APT)
	if ! command -v $(PYTHON) >/dev/null; then apt_install python3 python3-venv; fi
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
		echo "error: $$($(PYTHON) --version) is too old: 3.11 or later is needed (make PYTHON=/path/to/python3)" >&2
		exit 1
	fi
	if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then apt_install python3-venv; fi
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

# Stamps: serving needs no tools for development, and those need none for plots. Each install holds the ones before.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "pip: installing cleariflow"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "pip: installing cleariflow with its tools and tests"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(VENV)/.run $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "pip: installing cleariflow with its tools, tests and plots"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	touch $(VENV)/.run $(VENV)/.dev $@

$(VENV)/.ship: pyproject.toml $(VENV)/.dev
	@echo "pip: installing what builds distributions"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ship]'
	touch $@
