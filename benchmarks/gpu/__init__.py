"""Steps of the size that GPUs are for: see `benchmarks.gpu.__main__`."""
