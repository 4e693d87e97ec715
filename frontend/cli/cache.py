"""`onnxtape cache`: where compiled graphs are kept between processes, and removing them."""

from __future__ import annotations

import argparse
from typing import Any

from onnxtape.cli.output import readable_size


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "cache",
        help="show or clear the cache of compiled graphs",
        description="Show where compiled graphs are kept between processes and how much they take.",
    )
    parser.add_argument("--clear", action="store_true", help="remove them all")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a line."""
    from onnxtape.runtime.graph_cache import graph_cache

    cache = graph_cache()
    if cache is None:
        print("the cache is switched off: ONNXTAPE_CACHE=off is set in the environment")
    elif options.clear:
        size = cache.size()
        print(f"{cache.folder}: removed {cache.clear()} graphs, {readable_size(size)}")
    else:
        limit = readable_size(cache.limit)
        print(f"{cache.folder}: {readable_size(cache.size())} of at most {limit}")
    return 0
