"""`python -m tests.load.peers`: ours and other services in one run, each with the same callers, pictures and people."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from tests.load.peers.accuracy import verified
from tests.load.peers.services import SERVICES, Materials, NotRunnable
from tests.load.service.pictures import picture_set
from tests.load.service.preparing import people_in, prepared_folder, write_drawn
from tests.load.service.protocols import PROTOCOLS
from tests.load.service.rendering import disturbances
from tests.load.service.running import circumstances, generated
from tests.load.service.scenarios import Job, Scenario
from tests.load.service.summary import summarised, wrong

Record = dict[str, Any]

# Of an embedding, for all the networks that are compared.
DIMENSION = 128

_HEAD = (
    "| service | requests/s | ShrinkFace to it, with its network | p50, p99, ms | errors | wrong answers "
    "| memory, MiB | LFW accuracy | pictures without a face |\n|---|---|---|---|---|---|---|---|---|"
)
# Whoever takes longer for one picture cannot be loaded: callers would give up.
_SLOWEST_S = 20.0
_PATIENCE_S = 120.0

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def run(
    lfw_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of Name/Name_0001.jpg.")],
    detector: Annotated[Path, typer.Option(exists=True, help="YuNet's ONNX file, for insightface and DeepFace.")],
    recognition: Annotated[Path, typer.Option(exists=True, help="ONNX network of 112 x 112 faces, for insightface.")],
    raw: Annotated[bool, typer.Option(help="That network takes 0..255, not -1..1.")] = False,
    adopted: Annotated[
        Path | None, typer.Option(exists=True, help="That network as `python -m model_training adopt` makes it.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(exists=True, help="pairs.txt of LFW, for the accuracy.")] = None,
    of_a_kind: Annotated[int, typer.Option(min=1, max=300, help="Pairs of each kind in each of the 10 folds.")] = 300,
    services: Annotated[str, typer.Option(help="By commas.")] = ",".join(SERVICES),
    faces: Annotated[int, typer.Option(min=0, help="Drawn faces in every gallery, beside the people.")] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=0, help="Of load on each; 0 for the accuracy alone.")] = 30.0,
    callers: Annotated[int, typer.Option(min=1)] = 8,
    python: Annotated[Path, typer.Option(help="Of the peers' environment.")] = Path(".venv-peers/bin/python"),
    folder: Annotated[Path, typer.Option(help="Where galleries and pictures are kept.")] = Path("runs/load"),
    out: Annotated[Path, typer.Option(help="JSON to write.")] = Path("runs/load/peers.json"),
) -> None:
    """Measure one service after the other, and print a table."""
    pictures = picture_set(folder, lfw_dir)
    chosen = services.split(",")
    materials = Materials(
        # Not resolved: it is the link that makes it the environment's.
        python.absolute(),
        detector,
        recognition,
        raw,
        pictures.enrolled,
        _drawn(folder, faces),
        prepared_folder(folder, faces, pictures),
        None if adopted is None else (adopted, prepared_folder(folder, faces, pictures, adopted)),
        folder / f"peers-{faces}-{pictures.root.name}-{recognition.stem}",
        folder,
    )
    materials.kept.mkdir(exist_ok=True)
    scenario = Scenario("closed", f"{callers} callers, different pictures", seconds, callers=callers, warm_up_s=5)
    # Whom one detector found and another not would be a stranger to the other.
    probes = pictures.probes(0, people_in(materials.data_dir))
    records: list[Record] = []
    for name in chosen:
        compared = SERVICES[name]
        record: Record = {"peer": name, "title": compared.title}
        try:
            with compared.started(materials) as running:
                if seconds:
                    job = Job(scenario, compared.protocol, "127.0.0.1", running.port, probes)
                    _try_one(job)
                    outcome, usage = generated(job, running.process_id, folder)
                    record |= summarised(scenario, outcome, usage)
                if pairs is not None:
                    record["verification"] = verified(compared, running, lfw_dir, pairs, of_a_kind)
        except (NotRunnable, RuntimeError) as error:
            record["not_run"] = str(error)
        records.append(record)
        out.write_text(json.dumps({**circumstances(), "faces": faces, "records": records}))
    typer.echo(table(records))


@app.command()
def render(
    records: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Later ones add to the earlier.")],
) -> None:
    """Print the table of runs."""
    merged: dict[str, Record] = {}
    for path in records:
        for record in json.loads(path.read_text())["records"]:
            merged[record["peer"]] = merged.get(record["peer"], {}) | record
    typer.echo(table(list(merged.values())))


def table(records: list[Record]) -> str:
    """Markdown, a row for each service."""
    speeds = {each["peer"]: each["requests_per_s"] for each in records if "requests_per_s" in each}
    ours = [speeds.get(name) for name in ("ours", "ours-same")]
    rows = "\n".join([_HEAD, *(_row(record, ours) for record in records)])
    return "\n\n".join(part for part in (rows, disturbances([each for each in records if "usage" in each])) if part)


def _row(record: Record, ours: list[float | None]) -> str:
    found = record.get("verification")
    accuracy = "-" if found is None else f"{found['accuracy_percent']:.2f} % +- {found['std_percent']:.2f}"
    missed = "-" if found is None else f"{found['pictures_without_face']:,} of {found['pictures']:,}"
    if "requests_per_s" not in record:
        why = record.get("not_run", "not loaded").replace("|", "/").replace("\n", " ")
        return f"| {record['title']} | not run: {why} |" + " |" * 5 + f" {accuracy} | {missed} |"
    latency = record["latency_ms"].get("identify", {"p50": float("nan"), "p99": float("nan")})
    speed = record["requests_per_s"]
    times = ", ".join(f"{each / speed:.1f} times" if each and speed else "-" for each in ours)
    errors = ", ".join(f"{count} x {what}" for what, count in sorted(record["errors"].items())) or "0"
    memory = record["usage"].get("resident_mib", [float("nan")])[-1]
    return (
        f"| {record['title']} | {speed:,.1f} | {times} | {latency['p50']:,.0f}, {latency['p99']:,.0f} | {errors} "
        f"| {wrong(record)} | {memory:,.0f} | {accuracy} | {missed} |"
    )


def _drawn(folder: Path, faces: int) -> Path | None:
    """The very faces that our own data folders get."""
    if not faces:
        return None
    target = folder / f"drawn-{faces}.npy"
    if not target.exists():
        half = target.with_suffix(".part")
        write_drawn(half, faces, DIMENSION)
        half.rename(target)
    return target


def _try_one(job: Job) -> None:
    """Ask for one picture. Raises NotRunnable if it takes so long that callers would give up."""
    call = PROTOCOLS[job.service].identify(Path(job.probes[0][0]).read_bytes())
    started = time.perf_counter()
    try:
        httpx.request(
            call.method, f"http://{job.host}:{job.port}{call.path}",
            content=call.body, headers=call.headers, timeout=_PATIENCE_S,
        )  # fmt: skip
    except httpx.TimeoutException:
        raise NotRunnable(f"no answer to one picture in {_PATIENCE_S:.0f} s") from None
    if (took := time.perf_counter() - started) > _SLOWEST_S:
        raise NotRunnable(f"one picture took {took:.0f} s")


if __name__ == "__main__":
    app()
