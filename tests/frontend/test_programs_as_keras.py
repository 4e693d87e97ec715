"""Whole programs that users of Keras write give Keras's numbers."""

from __future__ import annotations

import pytest

from tests.reference import parity


@pytest.mark.filterwarnings("ignore:Distiller.call takes no argument 'training':UserWarning")
@pytest.mark.parametrize("name", parity.names("programs"))
def test_as_keras(name: str) -> None:
    parity.check("programs", name, rtol=1e-4, atol=2e-5)
