"""Benchmarks: every figure is a ratio to a limit that is measured in the same run. `python -m bench --help`."""
