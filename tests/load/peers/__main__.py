"""`python -m tests.load.peers`: ours and other services in one run, each with the same callers, pictures and people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.load.peers.accuracy import verified
from tests.load.peers.services import SERVICES, Materials, NotRunnable
from tests.load.service.pictures import PictureSet, picture_set
from tests.load.service.preparing import people_in, prepared_folder
from tests.load.service.rendering import disturbances
from tests.load.service.running import circumstances, generated
from tests.load.service.scenarios import Job, Scenario
from tests.load.service.summary import summarised, wrong

Record = dict[str, Any]

_HEAD = (
    "| service | requests/s | ours to it | p50, p99, ms | errors | wrong answers | memory, MiB | LFW accuracy "
    "| pictures without a face |\n|---|---|---|---|---|---|---|---|---|"
)

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def run(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    detector: Annotated[Path, typer.Option(exists=True, help="YuNet's ONNX file, for insightface and DeepFace.")],
    recognition: Annotated[Path, typer.Option(exists=True, help="ONNX network of 112 x 112 faces, for insightface.")],
    raw: Annotated[bool, typer.Option(help="That network takes 0..255, not -1..1.")] = False,
    pairs: Annotated[Path | None, typer.Option(exists=True, help="pairs.txt of LFW, for the accuracy.")] = None,
    of_a_kind: Annotated[int, typer.Option(min=1, max=300, help="Pairs of each kind in each of the 10 folds.")] = 300,
    services: Annotated[str, typer.Option(help="By commas.")] = ",".join(SERVICES),
    people: Annotated[int, typer.Option(min=1, help="In the peers' galleries; ours has them all.")] = 300,
    faces: Annotated[int, typer.Option(min=0, help="Drawn faces in our gallery besides.")] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=5)] = 30.0,
    callers: Annotated[int, typer.Option(min=1)] = 8,
    python: Annotated[Path, typer.Option(help="Of the peers' environment.")] = Path(".venv-peers/bin/python"),
    folder: Annotated[Path, typer.Option(help="Where galleries and pictures are kept.")] = Path("runs/load"),
    out: Annotated[Path, typer.Option(help="JSON to write.")] = Path("runs/load/peers.json"),
) -> None:
    """Measure one service after the other, and print a table."""
    pictures = picture_set(folder, lfw_dir)
    enrolled = _first(pictures, people, folder / f"peers-{people}")
    data_dir = prepared_folder(folder, faces, pictures)
    # Not resolved: it is the link that makes it the environment's.
    materials = Materials(python.absolute(), detector, recognition, raw, enrolled, data_dir, folder)
    scenario = Scenario("closed", f"{callers} callers, different pictures", seconds, callers=callers, warm_up_s=5)
    # Who is enrolled with us alone would be a stranger to the others.
    ours, theirs = people_in(data_dir), frozenset(path.name for path in enrolled.iterdir())
    alone = {path for path, shows in pictures.probes(0, ours) if shows and shows not in theirs}
    probes = [(path, shows) for path, shows in pictures.probes(0, ours & theirs) if path not in alone]
    records: list[Record] = []
    for name in services.split(","):
        compared = SERVICES[name]
        record: Record = {"peer": name, "title": compared.title}
        try:
            with compared.started(materials) as running:
                job = Job(scenario, compared.protocol, "127.0.0.1", running.port, probes)
                outcome, usage = generated(job, running.process_id, folder)
                record |= summarised(scenario, outcome, usage)
                if pairs is not None:
                    record["verification"] = verified(compared, running, lfw_dir, pairs, of_a_kind)
        except (NotRunnable, RuntimeError) as error:
            record["not_run"] = str(error)
        records.append(record)
        out.write_text(json.dumps({**circumstances(), "people": people, "faces": faces, "records": records}))
    typer.echo(table(records))


@app.command()
def render(records: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]) -> None:
    """Print the table of a run."""
    typer.echo(table(json.loads(records.read_text())["records"]))


def table(records: list[Record]) -> str:
    """Markdown, a row for each service."""
    ours = next((each["requests_per_s"] for each in records if each["peer"] == "ours" and "not_run" not in each), None)
    rows = "\n".join([_HEAD, *(_row(record, ours) for record in records)])
    return "\n\n".join(part for part in (rows, disturbances(records)) if part)


def _row(record: Record, ours: float | None) -> str:
    if "not_run" in record:
        why = record["not_run"].replace("|", "/").replace("\n", " ")
        return f"| {record['title']} | not run: {why} |" + " |" * 7
    latency = record["latency_ms"].get("identify", {"p50": float("nan"), "p99": float("nan")})
    speed = record["requests_per_s"]
    ratio = f"{ours / speed:.1f} times" if ours and speed else "-"
    errors = ", ".join(f"{count} x {what}" for what, count in sorted(record["errors"].items())) or "0"
    memory = record["usage"].get("resident_mib", [float("nan")])[-1]
    found = record.get("verification")
    accuracy = "-" if found is None else f"{found['accuracy_percent']:.2f} % +- {found['std_percent']:.2f}"
    missed = "-" if found is None else f"{found['pictures_without_face']:,} of {found['pictures']:,}"
    return (
        f"| {record['title']} | {speed:,.1f} | {ratio} | {latency['p50']:,.0f}, {latency['p99']:,.0f} | {errors} "
        f"| {wrong(record)} | {memory:,.0f} | {accuracy} | {missed} |"
    )


def _first(pictures: PictureSet, people: int, target: Path) -> Path:
    """A folder of the first so many enrolled people."""
    if not target.exists():
        for person in sorted(pictures.enrolled.iterdir())[:people]:
            shutil.copytree(person, target / person.name)
    return target


if __name__ == "__main__":
    app()
