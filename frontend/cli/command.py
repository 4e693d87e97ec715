"""The command `onnxtape`: its arguments, and how it says what went wrong.

Nothing heavy is imported before a subcommand runs: `train` needs only what training needs.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import onnxtape
from onnxtape.cli import build, cache, doctor, inspection, train
from onnxtape.cli.output import UsageError
from onnxtape.requirements import missing_sentence

_EPILOG = """\
From an ONNX model to a trained one:

  onnxtape build model.onnx --loss cross_entropy --optimizer adamw --metrics accuracy -o artifact
  onnxtape train artifact --data train.npz --validation valid.npz --epochs 5 --export trained.onnx

It exits with 0, with 1 where something is wrong (a sentence says what), with 2 for wrong usage, and
with 130 when it was interrupted."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all arguments."""
    parser = argparse.ArgumentParser(
        prog="onnxtape",
        description="Train ONNX models on stock ONNX Runtime.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"onnxtape {onnxtape.__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where in the program an error arose"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for module in (build, train, inspection, doctor, cache):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit status.
    """
    options = make_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status: int = options.run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _failed("stopped", 130)
    except BrokenPipeError:
        # Whoever read the output has gone; nothing more may be written, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        if isinstance(error, UsageError):
            hint = f"; see onnxtape {options.command} --help"
            return _failed(f"{error}{hint}", 2)
        return _failed(_sentence(error), 1)
    return status


def _failed(message: str, status: int) -> int:
    print(f"onnxtape: {' '.join(message.split())}", file=sys.stderr)
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = error.filename2 or error.filename
        return f"{error.strerror}: {where}" if where else error.strerror
    if isinstance(error, ImportError) and (missing := missing_sentence(error)):
        return missing
    if isinstance(error, MemoryError):
        return f"there is not enough memory {error}".rstrip()
    # Those that are raised on purpose, to be read.
    ours = type(error).__module__.partition(".")[0] == "onnxtape"
    if str(error) and (ours or isinstance(error, (OSError, ValueError, ImportError))):
        return str(error)
    return (
        f"an unexpected {type(error).__name__}: {error}; `onnxtape --traceback ...` shows where it "
        "arose"
    )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    print(f"onnxtape: note: {' '.join(str(message).split())}", file=sys.stderr)
