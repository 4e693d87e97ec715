"""Runs an example in this process, as `python examples/NAME.py` would."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What it printed, and its names afterwards."""
    script = str(EXAMPLES / f"{name}.py")
    output = io.StringIO()
    with (
        mock.patch("sys.argv", [script, *arguments]),
        mock.patch("sys.path", [str(EXAMPLES), *sys.path]),
        contextlib.redirect_stdout(output),
    ):
        made = runpy.run_path(script, run_name="__main__")
    return output.getvalue(), made
