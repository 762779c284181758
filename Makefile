# make run     set up what serving needs, then serve on http://127.0.0.1:8000 (more flags: make run ARGS="--port 9000")
# make test    set up everything, then run the tests (make test ARGS="-k store"); make test-slow runs the slow ones
# make check   format, lint and types
# make bench   set up everything, then measure how fast it is (python -m bench; needs Node.js; make bench ARGS="--quick")
# make setup   only set up: .venv with all packages; Chromium and fonts by apt where they are missing
# make clean   remove .venv and what the tools leave behind

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := setup
.PHONY: setup run test test-slow check bench clean system

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
endef

setup: system $(VENV)/.dev

run: system $(VENV)/.run
	@exec $(BIN)/python cleariflow.py $(ARGS)

test: setup
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

test-slow: setup
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

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
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

# Three stamps: serving needs no tools for development, and those need none for plots. Each install holds the ones before.
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
