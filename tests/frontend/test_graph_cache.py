"""The cache of optimized graphs: what is found again, what is not, and what goes wrong on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import compilation, naming, tracing
from onnxtape.cli import main
from onnxtape.compiler import fingerprint as fingerprints
from onnxtape.runtime import graph_cache as module
from onnxtape.runtime.graph_cache import CachedGraph, GraphCache, graph_cache

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXTAPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows when the passes run, and when ONNX Runtime optimizes a graph."""
    done: list[str] = []
    run_passes, optimized = tracing.run_passes, compilation._optimized

    def counted_passes(*args: Any, **options: Any) -> None:
        done.append("passes")
        run_passes(*args, **options)

    def counted_optimized(*args: Any) -> CachedGraph:
        done.append("optimize")
        return optimized(*args)

    monkeypatch.setattr(tracing, "run_passes", counted_passes)
    monkeypatch.setattr(compilation, "_optimized", counted_optimized)
    return done


def train(steps: int = 3, width: int = 4, rate: float = 0.1) -> list[float]:
    """Losses of a step that is built, traced and run anew."""
    naming.reset_names()
    ot.set_seed(1)
    layer = ot.layers.Dense(width, activation="tanh")
    drop = ot.layers.Dropout(0.25)
    optimizer = ot.optimizers.SGD(rate, momentum=0.9)

    @ot.function(fallback="error")
    def step(x: ot.Tensor) -> ot.Tensor:
        with ot.GradientTape() as tape:
            loss = ot.ops.mean(drop(layer(x), training=True) ** 2)
        weights = layer.trainable_weights
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    return [float(step(X)) for _ in range(steps)]


def test_the_second_time_nothing_is_compiled(folder: Path, compiled: list[str]) -> None:
    first = train()
    once = ["optimize", "passes"]
    assert compiled == once
    assert len(list(folder.iterdir())) == 1
    assert train() == first
    assert compiled == once


def test_another_process_finds_it(folder: Path) -> None:
    program = (
        "import numpy as np, onnxtape as ot\n"
        "from onnxtape import compilation\n"
        "v = ot.Variable(np.ones(3, np.float32))\n"
        "made, before = [], compilation._optimized\n"
        "compilation._optimized = lambda *args: made.append(1) or before(*args)\n"
        "@ot.function\n"
        "def step(x):\n"
        "    v.assign_sub(0.5 * x)\n"
        "    return ot.ops.sum(v)\n"
        "print(len(made), *(float(step(np.ones(3, np.float32))) for _ in range(2)), len(made))\n"
    )

    def run(_: int) -> list[str]:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
        return ended.stdout.split()

    # At the same time: whoever comes first, all of them work.
    with ThreadPoolExecutor(3) as pool:
        assert {tuple(out[1:3]) for out in pool.map(run, range(3))} == {("1.5", "0.0")}
    assert run(0) == ["0", "1.5", "0.0", "0"]
    assert [path.suffix for path in folder.iterdir()] == [".graph"]


def test_another_step_is_another_entry(folder: Path, compiled: list[str]) -> None:
    train()
    train(width=5)
    assert compiled.count("optimize") == 2
    # A learning rate is a state variable, and changes nothing in the graph.
    train(rate=0.2)
    assert compiled.count("optimize") == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(module, "_processor", lambda: "another"),
        lambda patch: patch.setenv("ONNXTAPE_PASSES", "none"),
        lambda patch: patch.setattr(compilation, "compiler_fingerprint", lambda: "newer"),
    ],
    ids=["processor", "passes", "compiler"],
)
def test_what_else_belongs_to_the_key(
    change: Callable[[pytest.MonkeyPatch], Any],
    folder: Path,
    compiled: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train()
    change(monkeypatch)
    train()
    assert compiled.count("optimize") == 2


def test_a_fingerprint_tells_constants_and_attributes_apart() -> None:
    def digest(f: Callable[[ot.Tensor], ot.Tensor]) -> str:
        naming.reset_names()
        return fingerprints.fingerprint(ot.function(f).get_concrete_function(X).traced.raw)

    made = [
        digest(lambda x: x + 1.0),
        digest(lambda x: x + 2.0),
        digest(lambda x: x - 1.0),
        digest(lambda x: ot.ops.sum(x, axis=0)),
        digest(lambda x: ot.ops.sum(x, axis=1)),
        digest(lambda x: ot.ops.transpose(x)),
        digest(lambda x: ot.cond(ot.ops.sum(x) > 0, lambda: x + 1.0, lambda: x)),
        digest(lambda x: ot.cond(ot.ops.sum(x) > 0, lambda: x + 2.0, lambda: x)),
    ]
    assert len(set(made)) == len(made)
    assert digest(lambda x: x + 1.0) == made[0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "not JSON", "empty"])
def test_a_damaged_entry_is_replaced_with_a_warning(
    damage: str, folder: Path, compiled: list[str]
) -> None:
    first = train()
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    broken = {"cut": whole[:-9], "flipped": flipped, "not JSON": b"\x00\n" + whole, "empty": b""}
    path.write_bytes(broken[damage])
    with pytest.warns(RuntimeWarning, match="is damaged; it is compiled and written again"):
        assert train() == first
    assert compiled.count("optimize") == 2
    assert train() == first
    assert compiled.count("optimize") == 2


def test_an_error_still_names_the_users_line(folder: Path) -> None:
    def fail() -> str:
        naming.reset_names()
        table = ot.Variable(np.zeros((3, 2), np.float32), name="table")

        @ot.function
        def step(ids: ot.Tensor) -> ot.Tensor:
            table.assign(table + 1.0)
            return ot.ops.take(table, ids, axis=0)

        step(np.array([0, 1]))
        with pytest.raises(ot.errors.ExecutionError) as raised:
            step(np.array([0, 7]))
        return str(raised.value)

    message = fail()
    assert "test_graph_cache.py" in message
    assert fail() == message


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "cache", limit=4500)
    graph = CachedGraph(b"x" * 1000, {"n": 1})
    for number, key in enumerate("abc"):
        cache.store(key, graph)
        os.utime(cache.folder / f"{key}.graph", (number, number))
    assert cache.load("a") == graph  # used now
    cache.store("d", graph)
    assert cache.load("a") == graph
    cache.store("e", graph)
    assert [key for key in "abcde" if cache.load(key) is not None] == ["a", "c", "d", "e"]
    assert cache.size() <= cache.limit
    cache.store("large", CachedGraph(b"x" * 2000, {}))
    assert cache.load("large") is None
    assert cache.clear() == 4
    assert cache.size() == 0


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONNXTAPE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="cannot be cached in .*or to 'off'") as warned:
        losses = train()
    assert len(warned) == 1
    monkeypatch.setenv("ONNXTAPE_CACHE", "off")
    assert train() == losses


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONNXTAPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = graph_cache()
    assert cache is not None
    assert (cache.folder, cache.limit) == (tmp_path / "onnxtape", 1_000_000_000)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("ONNXTAPE_CACHE_SIZE", "5")
    cache = graph_cache()
    assert cache is not None
    assert (cache.folder, cache.limit) == (tmp_path / ".cache/onnxtape", 5_000_000)
    monkeypatch.setenv("ONNXTAPE_CACHE_SIZE", "much")
    with pytest.raises(ValueError, match="must be a whole number of megabytes, got 'much'"):
        graph_cache()
    monkeypatch.setenv("ONNXTAPE_CACHE", "off")
    assert graph_cache() is None


def test_the_command_shows_and_clears_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train()
    assert main(["cache"]) == 0
    assert f"{folder}: " in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "removed 1 graphs" in capsys.readouterr().out
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("ONNXTAPE_CACHE", "off")
    assert main(["cache"]) == 0
    assert "switched off" in capsys.readouterr().out
