"""Layers compute and learn as Keras's do."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("core"))
def test_core(name: str) -> None:
    parity.check("core", name)
