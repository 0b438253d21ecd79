"""One run of atheris over a target, in a process of its own: `python -m tests.fuzz.worker TARGET FOLDER ...`.

What comes behind the folder goes to libFuzzer. It ends at the first finding, which libFuzzer writes to a file.
"""

from __future__ import annotations

import resource
import sys
import time

import atheris

# Before the code that is tried is loaded: it is compiled anew, so that libFuzzer sees which branches an input takes.
_INSTRUMENTED = ["service", "PIL", "python_multipart", "starlette", "tests.fuzz"]
with atheris.instrument_imports(include=_INSTRUMENTED):
    from tests.fuzz.replay import LIMIT_S
    from tests.fuzz.targets import target

# What libFuzzer itself comes to hold.
_OWN_MB = 200


def main() -> None:
    """Of the command line."""
    name, corpus, *options = sys.argv[1:]
    with atheris.instrument_imports(include=_INSTRUMENTED):
        tried = target(name)
    tried.check(next(iter(tried.seeds().values())))
    limit_mb = _peak_mb() + tried.MAX_GROWTH_MB + _OWN_MB

    def check(data: bytes) -> None:
        """As libFuzzer's own limits, by the process's time, and for memory that is given back at once."""
        started = time.process_time()
        tried.check(data)
        if time.process_time() - started > LIMIT_S:
            raise AssertionError("it took too long")
        if _peak_mb() > limit_mb:
            raise AssertionError("it took too much memory")

    def mutate(body: bytes, size: int) -> bytes:
        return bytes(atheris.Mutate(body, size)) if size > 0 else b""

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        return tried.mutated(data, max_size, seed, mutate)

    atheris.Setup([sys.argv[0], *options, corpus], check, custom_mutator=mutated)
    atheris.Fuzz()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


if __name__ == "__main__":
    main()
