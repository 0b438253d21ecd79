"""The service under load: real pictures over HTTP, a gallery of a million faces, locust as the callers.

`python -m tests.load.service --help`; docs/benchmarks.md has the figures.
"""
