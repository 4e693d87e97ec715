"""Layers and models made again from their configurations are Keras's."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("configurations"))
def test_as_keras(name: str) -> None:
    parity.check("configurations", name)
