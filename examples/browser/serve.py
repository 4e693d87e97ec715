"""Serve the page to this machine, and make its files if they are not there yet.

npm install --prefix js --ignore-scripts      once: brings onnxruntime-web
python examples/browser/serve.py              then open the address that it prints
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Handler(SimpleHTTPRequestHandler):
    """Files of the repository, under the types that browsers insist on."""

    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free")
    options = parser.parse_args()
    if not (ROOT / "js" / "node_modules" / "onnxruntime-web").is_dir():
        print("serve: first `npm install --prefix js --ignore-scripts`", file=sys.stderr)
        return 2
    if not (HERE / "generated" / "digits.json").is_file():
        from make_artifact import make

        make(HERE / "generated")
    handler = partial(Handler, directory=ROOT)
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        port = server.server_address[1]
        print(f"http://127.0.0.1:{port}/examples/browser/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
