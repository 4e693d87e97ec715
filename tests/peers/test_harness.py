"""The benchmark's own arithmetic and its handling of frameworks that are absent or broken."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import harness

    return harness


@pytest.fixture
def footprint(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import footprint

    return footprint


def distribution(folder: Path, name: str, files: dict[str, str], *requires: str) -> None:
    """Lay out an installed distribution in `folder`."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (information / "METADATA").write_text("\n".join(lines) + "\n")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    record = [f"{path},," for path in [*files, "gone.py"]]
    (information / "RECORD").write_text("\n".join(record) + "\n")


def test_installed_size_is_the_closure_over_requirements(
    tmp_path: Path, footprint: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(
        tmp_path,
        "alpha",
        {"alpha/__init__.py": "x" * 100},
        "beta[more]>=1",
        'never; python_version < "3"',
        'extra-only; extra == "unused"',
        "absent",
    )
    distribution(tmp_path, "beta", {"beta.py": "x" * 20}, 'gamma; extra == "more"', "alpha")
    distribution(tmp_path, "gamma", {"gamma.py": "x" * 3})
    distribution(tmp_path, "never", {"never.py": "x" * 1000})
    distribution(tmp_path, "extra-only", {"extra_only.py": "x" * 1000})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    interpreter = footprint.Interpreter(sys.executable)
    assert sorted(interpreter.closure(("alpha",))) == ["alpha", "beta", "gamma"]
    assert interpreter.installed_bytes(("alpha",)) == 123
    assert interpreter.installed_bytes(("gamma",)) == 3
    assert interpreter.versions(("alpha", "absent")) == {"alpha": "1.0"}


def test_an_editable_distribution_counts_its_source_folders(
    tmp_path: Path, footprint: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a project"
    for folder, text in {"front": "12345", "back": "123", "tests": "x" * 1000}.items():
        (source / folder).mkdir(parents=True)
        (source / folder / "__init__.py").write_text(text)
    (source / "pyproject.toml").write_text(
        '[tool.setuptools.package-dir]\nshown = "front"\n"shown.inner" = "back"\n'
    )
    site = tmp_path / "site"
    distribution(site, "shown", {"__editable__shown.py": "x" * 1000})
    direct = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (site / "shown-1.0.dist-info" / "direct_url.json").write_text(json.dumps(direct))
    monkeypatch.setenv("PYTHONPATH", str(site))
    assert footprint.Interpreter(sys.executable).installed_bytes(("shown",)) == 8


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ([2.0, 1.0009], []),
        ([2.0, 1.002], ["step 1: the loss is 1 in ours and 1.002 in theirs"]),
        ([float("nan"), 1.0], ["step 0: the loss is 2 in ours and nan in theirs"]),
    ],
)
def test_different_losses_are_reported(
    harness: ModuleType, theirs: list[float], expected: list[str]
) -> None:
    assert harness.disagreements({"ours": [2.0, 1.0], "theirs": theirs}) == expected


def test_a_process_that_does_not_sleep_is_reported(harness: ModuleType) -> None:
    def measured(idle_cpu_s: float) -> Any:
        measurement = harness.Measurement("some", {}, 0.1, 1, 0.1, [1.0])
        block = {"elapsed_s": 0.5, "idle_s": 10.0, "idle_cpu_s": idle_cpu_s, "peak_bytes": 1}
        measurement.add(block, steps=100)
        return measurement

    result = harness.Result("title", 1, 100, {"a": measured(0.01), "b": measured(3.0)})
    assert result.measured["a"].median_ms == 5.0
    assert result.restless == [
        "some used 3.00 s of processor time in 10.0 s between its turns: "
        "the other frameworks' times are too long"
    ]


def run(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark's command, one short round."""
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--steps", "1", *options]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True
    )


def test_a_framework_that_is_not_installed_is_left_out_by_name(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    python = tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python"
    result = run("--peers", "jax", "torch", "--peer-python", str(python))
    assert result.returncode == 1, "nothing was measured"
    text = " ".join(result.stdout.split())
    assert f"JAX jit left out: jax not installed for {python}" in text
    assert f"PyTorch eager left out: torch, numpy not installed for {python}" in text


def test_a_framework_that_breaks_is_reported_with_its_error(tmp_path: Path) -> None:
    broken = tmp_path / "jax"
    distribution(tmp_path, "jax", {"jax/__init__.py": "raise RuntimeError('no such device')"})
    result = run("--peers", "jax", PYTHONPATH=str(broken.parent))
    assert result.returncode == 1
    assert "JAX jit FAILED: RuntimeError: no such device" in " ".join(result.stdout.split())


def test_a_wrong_interpreter_is_refused() -> None:
    result = run("--peers", "jax", "--peer-python", "no-such-python")
    assert result.returncode == 1
    assert result.stderr.startswith("no-such-python is not a Python interpreter: ")
