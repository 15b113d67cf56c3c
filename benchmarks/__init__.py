"""One script a question: ``python -m benchmarks.NAME [--quick]`` prints JSON lines, and a table for people on stderr."""
