"""What a framework costs before it trains: bytes on disk and seconds to import."""

import json
import statistics
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PROBE = (
    "import json, platform, sys;"
    "print(json.dumps([[p for p in sys.path if p], platform.python_version()]))"
)


class Interpreter:
    """The environment of a Python interpreter, looked at from outside."""

    def __init__(self, executable: str) -> None:
        """Ask `executable` for its search path.

        Raises:
            SystemExit: `executable` cannot be run as a Python interpreter.
        """
        self.executable = executable
        try:
            answer = subprocess.run(
                [executable, "-c", _PROBE], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{executable} is not a Python interpreter: {error}") from None
        self._path, self._version = json.loads(answer.stdout)

    def distribution(self, name: str) -> Distribution | None:
        """The installed distribution called `name`."""
        return next(iter(distributions(name=name, path=self._path)), None)

    def versions(self, names: tuple[str, ...]) -> dict[str, str]:
        """The versions of those distributions in `names` that are installed."""
        found = {name: self.distribution(name) for name in names}
        return {name: one.version for name, one in found.items() if one is not None}

    def closure(self, names: tuple[str, ...]) -> dict[str, Distribution]:
        """The installed distributions that those in `names` need, themselves included."""
        found: dict[str, Distribution] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        queue = [Requirement(name) for name in names]
        while queue:
            requirement = queue.pop()
            key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            distribution = self.distribution(requirement.name)
            if key in seen or distribution is None:
                continue
            seen.add(key)
            found[key[0]] = distribution
            queue += self._needs(distribution, requirement.extras)
        return found

    def installed_bytes(self, names: tuple[str, ...]) -> int:
        """Bytes on disk of the distributions in `names` and of everything that they need."""
        return sum(
            file.stat().st_size
            for distribution in self.closure(names).values()
            for file in _files(distribution)
        )

    def import_seconds(
        self, modules: tuple[str, ...], environment: Mapping[str, str], repeats: int = 3
    ) -> float:
        """Median seconds of importing `modules`, each time in a fresh process."""
        program = (
            "import time; start = time.perf_counter()\n"
            f"import {', '.join(modules)}\n"
            "print(time.perf_counter() - start)"
        )
        return statistics.median(
            float(
                subprocess.run(
                    [self.executable, "-c", program],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=environment,
                ).stdout.split()[-1]
            )
            for _ in range(repeats)
        )

    def resident_bytes(
        self, modules: tuple[str, ...], environment: Mapping[str, str]
    ) -> int | None:
        """The resident size of a fresh process that has imported `modules`; Linux tells it."""
        program = (
            f"import {', '.join(modules)}\n"
            "import os, pathlib\n"
            "status = pathlib.Path('/proc/self/statm')\n"
            "pages = int(status.read_text().split()[1]) if status.exists() else -1\n"
            "print(pages * os.sysconf('SC_PAGE_SIZE') if pages >= 0 else -1)"
        )
        answer = subprocess.run(
            [self.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        found = int(answer.stdout.split()[-1])
        return found if found >= 0 else None

    def _needs(self, distribution: Distribution, extras: set[str]) -> Iterator[Requirement]:
        versions = {
            "python_version": ".".join(self._version.split(".")[:2]),
            "python_full_version": self._version,
        }
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate(versions | {"extra": extra}) for extra in ("", *extras)
            ):
                yield requirement


def _files(distribution: Distribution) -> Iterator[Path]:
    """The files of `distribution` that are on disk; of an editable one, its source folders'."""
    direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    if direct.get("dir_info", {}).get("editable"):
        root = Path(unquote(urlsplit(direct["url"]).path))
        setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
        for folder in setuptools["package-dir"].values():
            yield from (path for path in (root / folder).rglob("*") if path.is_file())
        return
    for entry in distribution.files or []:
        path = Path(str(entry.locate()))
        if path.is_file():
            yield path
