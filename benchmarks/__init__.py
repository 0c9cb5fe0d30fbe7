"""What we measure, against what, and the last results: `python -m benchmarks`; docs/benchmarks.md explains."""
