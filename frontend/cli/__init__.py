"""The command line: `onnxtape build`, `train`, `inspect`, `doctor`, `cache`."""

from onnxtape.cli.command import main

__all__ = ["main"]
