"""`python -m onnxtape`: the command line."""

from onnxtape.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
