"""`python -m tests.load.service`: prepare, run, soak, smoke, render."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tests.load.service.pictures import PictureSet, picture_set
from tests.load.service.preparing import prepared_folder
from tests.load.service.rendering import Record, plot, tables
from tests.load.service.running import loaded
from tests.load.service.scenarios import SCENARIOS, SMOKE, Scenario
from tests.load.service.summary import wrong

# Enough for the search to sift first.
_SMOKE_FACES = 30_000
_SMOKE_WRONG_SHARE = 0.05

app = typer.Typer(no_args_is_help=True, add_completion=False)

LfwDir = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg; else versions of two portraits."),
]
Faces = Annotated[int, typer.Option(min=0, help="Drawn faces in the gallery, beside the people of the pictures.")]
Folder = Annotated[Path, typer.Option(help="Where galleries and pictures are kept for the next run.")]
Out = Annotated[Path | None, typer.Option(help="JSON to write, a record for each scenario.")]
Seconds = Annotated[float | None, typer.Option(min=1, help="How long each is counted, where not as the scenario says.")]

_FACES = 1_000_000
_FOLDER = Path("runs/load")


@app.command()
def prepare(lfw_dir: LfwDir = None, faces: Faces = _FACES, folder: Folder = _FOLDER) -> None:
    """Write the pictures and import the gallery, unless that was done before."""
    typer.echo(prepared_folder(folder, faces, picture_set(folder, lfw_dir)))


@app.command()
def run(
    scenarios: Annotated[list[str], typer.Argument(help=f"Of {', '.join(SCENARIOS)}.")],
    lfw_dir: LfwDir = None,
    faces: Faces = _FACES,
    folder: Folder = _FOLDER,
    seconds: Seconds = None,
    out: Out = None,
) -> None:
    """Run scenarios one after the other, each on a service of its own."""
    if unknown := [name for name in scenarios if name not in SCENARIOS]:
        raise typer.BadParameter(f"there is no {', '.join(unknown)}", param_hint="SCENARIOS")
    chosen = [SCENARIOS[name] for name in scenarios]
    if seconds is not None:
        chosen = [Scenario(**{**vars(scenario), "seconds": seconds}) for scenario in chosen]
    _measure(chosen, picture_set(folder, lfw_dir), faces, folder, out)


@app.command()
def soak(lfw_dir: LfwDir = None, faces: Faces = _FACES, folder: Folder = _FOLDER, out: Out = None) -> None:
    """Ten minutes of the mix; fails on an error, or when memory grows by 1 % after the first minute."""
    (record,) = _measure([SCENARIOS["soak"]], picture_set(folder, lfw_dir), faces, folder, out)
    grown = record["usage"]["resident_growth_percent"]
    if record["errors"] or grown >= 1:
        typer.echo(f"errors: {record['errors']}, growth of resident memory {grown} %", err=True)
        raise typer.Exit(code=1)


@app.command()
def smoke(folder: Folder = _FOLDER, out: Out = None) -> None:
    """A minute on a small gallery with two portraits; fails on an error, or on wrong answers beyond chance."""
    records = _measure(list(SMOKE), picture_set(folder, None), _SMOKE_FACES, folder, out)
    for record in records:
        answers = sum(record["answers"].values())
        right = sum(record["answers"].get(each, 0) for each in ("identified", "stranger rejected"))
        if record["errors"] or not answers or wrong(record) > _SMOKE_WRONG_SHARE * answers or not right:
            typer.echo(f"{record['scenario']['name']}: {record['errors']}, {record['answers']}", err=True)
            raise typer.Exit(code=1)


@app.command()
def render(
    records: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="JSON files of runs.")],
    picture: Annotated[Path | None, typer.Option("--plot", help="SVG to write.")] = None,
) -> None:
    """Print the tables of records, the last of each scenario; draw them."""
    latest: dict[str, Record] = {}
    for path in records:
        latest |= {record["scenario"]["name"]: record for record in json.loads(path.read_text())}
    typer.echo(tables(list(latest.values())))
    if picture is not None:
        plot(list(latest.values()), picture)


def _measure(
    scenarios: list[Scenario], pictures: PictureSet, faces: int, folder: Path, out: Path | None
) -> list[Record]:
    data_dir = prepared_folder(folder, faces, pictures)
    records: list[Record] = []
    for scenario in scenarios:
        records.append(
            {**loaded(scenario, data_dir, pictures, folder), "faces_drawn": faces, "pictures": pictures.root.name}
        )
        if out is not None:
            # After each, so that an interrupted run leaves those before.
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(records))
    typer.echo(tables(records))
    return records


if __name__ == "__main__":
    app()
