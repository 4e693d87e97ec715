"""Run mypy (strict) on the package as it is installed from a wheel, not on the working tree.

An editable install maps package names to folders through an import hook, which mypy does not see.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", site, ROOT], check=True)
        mypy = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml"]
        environment = {**os.environ, "MYPYPATH": str(site)}
        return subprocess.run(
            [*mypy, "--package", "onnxtape"], cwd=folder, env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
