"""How fast, how large and how right our index and its peers are: one run, one machine, the same galleries and probes.

    python -m tests.load.gallery run --out runs/bench-gallery.jsonl
    python -m tests.load.gallery run --variants --out runs/bench-gallery-variants.jsonl
    python -m tests.load.gallery render --out runs/bench-gallery.jsonl --plot runs/bench-gallery.svg

`run` adds a line to the file for every measurement and leaves out those that are there, so it can be stopped and
started again. `render` prints the tables of what has been measured so far.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from tests.load import machine
from tests.load.drawing import DATA
from tests.load.measuring import Job, measure, prepare
from tests.load.records import read
from tests.load.rendering import plot as draw
from tests.load.rendering import tables
from tests.load.running import run as run_jobs
from tests.load.structures import PEERS, STRUCTURES, VARIANTS

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option(help="File of JSON lines, one a measurement.")]
Plot = Annotated[Path | None, typer.Option(help="Picture of speed and agreement to write, .svg or .png.")]
# The rest is for the system and whoever else is there.
_MEMORY_GIB = 0.8 * machine.memory_gib()
_OUT = Path("runs/bench-gallery.jsonl")


def _names(text: str, known: tuple[str, ...], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise typer.BadParameter(f"{what} are {', '.join(known)}")
    return names


def _numbers(text: str, least: int) -> list[int]:
    try:
        numbers = sorted({int(part.replace("_", "")) for part in text.split(",")})
    except ValueError as error:
        raise typer.BadParameter("numbers with commas between them") from error
    if numbers[0] < least:
        raise typer.BadParameter(f"{least:,} at least")
    return numbers


@app.command()
def run(
    out: Out = _OUT,
    sizes: Annotated[str, typer.Option(help="Faces of a gallery.")] = "10000,100000,1000000",
    dimensions: Annotated[str, typer.Option(help="Values of an embedding, multiples of 128.")] = "128,512",
    structures: Annotated[str, typer.Option(help=f"Of {', '.join(STRUCTURES)}; by default the peers.")] = "",
    variants: Annotated[bool, typer.Option(help="The codes we could have chosen instead of the peers.")] = False,
    data: Annotated[str, typer.Option(help=f"Of {', '.join(DATA)}.")] = ",".join(DATA),
    probes: Annotated[int, typer.Option(min=100)] = 2_000,
    tuning_probes: Annotated[int, typer.Option(min=100, help="Others, to choose settings by.")] = 4_000,
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = machine.cores(),
    seconds: Annotated[float, typer.Option(min=0.1, help="To time a structure's searches for, each of three.")] = 30.0,
    skip_build_over_s: Annotated[float, typer.Option(help="Leave out builds estimated to take longer.")] = 3_600.0,
    give_up_after_s: Annotated[float, typer.Option(help="End a measurement that takes longer.")] = 14_400.0,
    memory_limit_gib: Annotated[float, typer.Option(help="Fail a measurement that wants more.")] = _MEMORY_GIB,
    again: Annotated[bool, typer.Option(help="Measure also what has a result; the new one counts.")] = False,
    plot: Plot = None,
) -> None:
    """Measure what is missing in the file, then print the tables."""
    wanted = _names(structures, tuple(STRUCTURES), "structures") if structures else VARIANTS if variants else PEERS
    jobs = [
        Job(name, kind, dimension, size, probes, tuning_probes, threads, seconds)
        for size, dimension, kind, name in product(
            _numbers(sizes, 1_000), _numbers(dimensions, 128), _names(data, DATA, "data"), wanted
        )
    ]
    run_jobs(
        jobs,
        out,
        skip_build_over_s=skip_build_over_s,
        give_up_after_s=give_up_after_s,
        memory_limit_gib=memory_limit_gib,
        again=again,
        tell=lambda line: typer.echo(line, err=True),
    )
    render(out, plot)


@app.command()
def render(out: Out = _OUT, plot: Plot = None) -> None:
    """Print the tables of what has been measured so far."""
    records = read(out)
    typer.echo(tables(records))
    if plot is not None:
        draw(records, plot)


@app.command("prepare", hidden=True)
def prepare_one(job: str, folder: Path) -> None:
    """Find the exact answers for one gallery."""
    prepare(Job(**json.loads(job)), folder)
    typer.echo("{}")


@app.command("measure", hidden=True)
def measure_one(job: str, folder: Path) -> None:
    """Measure one structure, and print the record as the last line."""
    typer.echo(json.dumps(measure(Job(**json.loads(job)), folder)))


if __name__ == "__main__":
    app()
