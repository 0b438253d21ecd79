"""One run of atheris over a target, in a process of its own: `python -m tests.fuzz.worker TARGET FOLDER ...`.

What comes behind the folder goes to libFuzzer. It ends at the first finding, which libFuzzer writes to a file.
"""

from __future__ import annotations

import sys

import atheris

# Before the code that is tried is loaded: it is compiled anew, so that libFuzzer sees which branches an input takes.
with atheris.instrument_imports(include=["service", "PIL", "python_multipart", "starlette", "tests.fuzz"]):
    from tests.fuzz.targets import target


def main() -> None:
    """Of the command line."""
    name, corpus, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["service", "PIL", "python_multipart", "starlette", "tests.fuzz"]):
        tried = target(name)

    def mutate(body: bytes, size: int) -> bytes:
        return bytes(atheris.Mutate(body, size)) if size > 0 else b""

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        return tried.mutated(
            data, max_size, seed, lambda body, size: bytes(atheris.Mutate(body, size)) if size > 0 else b""
        )

    atheris.Setup([sys.argv[0], *options, corpus], tried.check, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
