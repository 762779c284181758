"""Installed, cleariflow.py is a package of one module: only a package can have files beside it, such as `py.typed`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Layout(BuildHookInterface[Any]):
    """What lies elsewhere in a wheel than in the checkout. An editable install is the checkout as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build."""
        if version == "standard":
            # Not the one of cdp: a file that is put somewhere else is missing in its own place.
            self._folder = TemporaryDirectory()
            marker = Path(self._folder.name, "py.typed")
            marker.touch()
            build_data["force_include"] |= {
                "cleariflow.py": "cleariflow/__init__.py",
                "cleariflow.html": "cleariflow/cleariflow.html",
                str(marker): "cleariflow/py.typed",
            }
