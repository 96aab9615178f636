"""The project's own benchmark, `make bench`: no test asserts a time, a benchmark reports it."""
