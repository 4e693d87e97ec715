"""The command line: `onnxtape build`, `train`, `inspect`, `doctor`."""

from onnxtape.cli.command import main

__all__ = ["main"]
