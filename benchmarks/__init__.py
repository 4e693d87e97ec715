"""Side-by-side benchmarks of whole training steps: ``python -m benchmarks`` (see ``__main__``)."""
