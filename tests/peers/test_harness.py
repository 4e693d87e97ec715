"""The benchmark's own arithmetic and its handling of frameworks that are absent or broken."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

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


def test_an_environment_below_the_present_folder_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: ModuleType
) -> None:
    from benchmarks import workloads
    from benchmarks.peers import PEERS

    monkeypatch.chdir(tmp_path)
    interpreter: Any = SimpleNamespace(
        executable=str(tmp_path / ".venv" / "python"), versions=lambda distributions: {}
    )
    reason = harness._why_left_out("jax", PEERS["jax"], workloads.load("mlp"), interpreter)
    assert reason.endswith(f" for {Path('.venv') / 'python'}")


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


def measurement(harness: ModuleType, label: str, *rounds_ms: float) -> Any:
    made = harness.Measurement(label, {"some": "1.0"}, 0.1, 1000, 0.1, [1.0], loaded_bytes=40)
    made.rounds_ms, made.peak_bytes = list(rounds_ms), 100
    return made


def result(harness: ModuleType, ours: float, *theirs: float) -> Any:
    measured = {"onnxtape": measurement(harness, "onnxtape", ours)}
    peers = ("torch", "jax", "tensorflow")
    measured |= {
        name: measurement(harness, name.title(), time)
        for name, time in zip(peers, theirs, strict=False)
    }
    made = harness.Result("a step", 1, 100, measured)
    made.rates = harness.Rates(flops_per_s=1e9, bytes_per_s=1e6)
    made.work = harness.Work(flops=1_000_000, bytes=500)
    return made


def test_the_best_peer_and_the_geometric_mean(harness: ModuleType) -> None:
    fast, slow = result(harness, 2.0, 9.0, 8.0), result(harness, 2.0, 2.0, 3.0)
    assert (fast.best_peer.label, fast.ratio) == ("Jax", 4.0)
    assert slow.ratio == 1.0
    assert harness.geometric_mean([fast, slow]) == pytest.approx(2.0)
    alone = result(harness, 2.0)
    assert alone.ratio is None
    assert harness.geometric_mean([alone]) is None
    assert fast.measured["onnxtape"].step_bytes == 60


def test_the_floor_is_the_longer_of_arithmetic_and_memory(harness: ModuleType) -> None:
    rates = harness.Rates(flops_per_s=1e9, bytes_per_s=1e6)
    assert harness.Work(flops=1_000_000, bytes=500).floor_ms(rates) == 1.0
    assert harness.Work(flops=1_000_000, bytes=2000).floor_ms(rates) == 2.0


def test_the_document_holds_the_table_and_the_plot(harness: ModuleType, tmp_path: Path) -> None:
    from benchmarks import document

    file = tmp_path / "results.md"
    file.write_text(f"# Before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    machine = {"processor": "a CPU", "threads": 2, "system": "Linux"}
    document.write(file, machine, {"mlp": result(harness, 2.0, 9.0, 8.0)}, rounds=3)
    text = file.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| mlp | 2.000 | Jax 8.000 | 4.00 | 1.000 | 2.0x | 1.00 |" in text
    assert "best peer / onnxtape: **4.00**" in text
    root = ElementTree.fromstring((tmp_path / "results.svg").read_text())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "mlp: 2 ms a step" in texts
    assert "4.00x  8 ms" in texts
    bars = [
        float(bar.attrib["width"])
        for bar in root.iter("{http://www.w3.org/2000/svg}rect")
        if bar.attrib["width"] != "100%"
    ]
    assert bars == sorted(bars)
    assert len(bars) == 3


def test_a_document_without_markers_is_refused(harness: ModuleType, tmp_path: Path) -> None:
    from benchmarks import document

    file = tmp_path / "results.md"
    file.write_text("# Results\n")
    with pytest.raises(SystemExit, match="has no lines"):
        document.write(file, {}, {}, rounds=3)
    assert file.read_text() == "# Results\n"
