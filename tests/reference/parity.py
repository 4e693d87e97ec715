"""Comparing onnxtape with the stored results of Keras; see make_keras_families.py."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np

import onnxtape as ot

FOLDER = Path(__file__).parent / "keras_families"


@functools.cache
def stored(family: str) -> dict[str, Any]:
    """The family's arrays by ``PROGRAM/NAME``."""
    with np.load(FOLDER / f"{family}.npz") as file:
        return dict(file)


@functools.cache
def _programs(family: str) -> dict[str, Any]:
    module = importlib.import_module(f"tests.reference.keras_families.{family}")
    programs: dict[str, Any] = module.PROGRAMS
    return programs


@functools.cache
def _made(family: str, program: str) -> dict[str, Any]:
    found: dict[str, Any] = _programs(family)[program](ot)
    return found


def names(family: str) -> list[str]:
    """The programs of a family: what a test is parametrized with."""
    return list(_programs(family))


def check(family: str, program: str, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    """Run one program here: the same arrays as Keras's, in names, shapes, dtypes and numbers."""
    prefix = f"{program}/"
    expected = {
        k.removeprefix(prefix): v for k, v in stored(family).items() if k.startswith(prefix)
    }
    found = _made(family, program)
    assert expected, f"nothing is stored for {program}: run make_keras_families.py {family}"
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
