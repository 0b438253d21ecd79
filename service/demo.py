"""`shrinkface demo`: the main job on real portraits, over HTTP, with a data folder that goes when it ends."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from service.api.server import Server
from service.settings import Settings
from service.telemetry import configure_logging

_START_TIMEOUT_S = 60.0


class DemoError(RuntimeError):
    """The demo cannot run here."""


@dataclass(frozen=True)
class Portrait:
    """A public-domain portrait: NASA's Eileen Collins and the US Navy's Grace Hopper."""

    person_id: str
    name: str
    pixels: NDArray[np.uint8]


def run_demo(*, port: int, once: bool) -> bool:
    """Run the demo; whether every probe came out as it should.

    Raises:
        DemoError: the portraits are not installed, or the service does not start.
    """
    console = Console()
    portraits, faceless = load_portraits(), load_faceless()
    configure_logging("warning", "console")
    with tempfile.TemporaryDirectory(prefix="shrinkface-demo-") as folder:
        settings = Settings(host="127.0.0.1", port=_free_port(port), data_dir=Path(folder))
        with _serving(settings) as base_url, httpx.Client(base_url=base_url, timeout=30) as client:
            console.print(f"Service at [bold]{base_url}[/] with a temporary data folder; API at {base_url}/docs\n")
            passed = _show(client, portraits, faceless, console)
            if not once:
                console.print("\nThe service stays up; try it, and end it with Ctrl-C:")
                console.print(f"  curl -F image=@photo.jpg {base_url}/identify", highlight=False)
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()
    return passed


def load_portraits() -> tuple[Portrait, Portrait]:
    """The two portraits, (height, width, 3) uint8 BGR, from the packages that ship them.

    Raises:
        DemoError: the `demo` extra is not installed.
    """
    try:
        # An extra: only the demo needs them.
        from matplotlib import get_data_path  # noqa: PLC0415
        from skimage import data  # noqa: PLC0415
    except ImportError as error:
        raise DemoError("the demo's portraits come with the extra: pip install 'shrinkface[demo]'") from error
    astronaut = np.ascontiguousarray(np.asarray(data.astronaut(), dtype=np.uint8)[..., ::-1])
    hopper = _read(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return (
        Portrait("eileen-collins", "Eileen Collins", astronaut),
        Portrait("grace-hopper", "Grace Hopper", hopper),
    )


def load_faceless() -> NDArray[np.uint8]:
    """A photo without a face: scikit-learn's china.jpg, (427, 640, 3) uint8 BGR.

    Raises:
        DemoError: the `demo` extra is not installed.
    """
    # Found without importing scikit-learn, which takes seconds.
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DemoError("the demo's photos come with the extra: pip install 'shrinkface[demo]'")
    return _read(Path(spec.origin).parent / "datasets" / "images" / "china.jpg")


def _read(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DemoError(f"no picture at {path}")
    return np.asarray(picture, dtype=np.uint8)


def jpeg(pixels: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Encode (height, width, 3) uint8 BGR."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _turned(pixels: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8)


def _half(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (pixels.shape[1] // 2, pixels.shape[0] // 2)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


VERSIONS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "mirrored": lambda pixels: jpeg(np.ascontiguousarray(pixels[:, ::-1])),
    "darker": lambda pixels: jpeg((pixels * 0.45).astype(np.uint8)),
    "half size": lambda pixels: jpeg(_half(pixels)),
    "JPEG 40": lambda pixels: jpeg(pixels, 40),
    "turned 10 degrees": lambda pixels: jpeg(_turned(pixels, 10)),
}


def _show(
    client: httpx.Client, portraits: tuple[Portrait, Portrait], faceless: NDArray[np.uint8], console: Console
) -> bool:
    table = Table(title="Who is it?")
    for column in ("picture", "version", "answer", "similarity", "threshold", "ms", ""):
        table.add_column(column, justify="right" if column in ("similarity", "threshold", "ms") else "left")
    outcomes: list[bool] = []

    def row(picture: str, version: str, answer: str, good: bool, *figures: str) -> None:
        outcomes.append(good)
        cells = [*figures, *[""] * (3 - len(figures))]
        table.add_row(picture, version, answer, *cells, "[green]ok" if good else "[red]WRONG")

    for portrait in portraits:
        response = client.post(
            "/enroll",
            files={"image": jpeg(portrait.pixels)},
            data={"person_id": portrait.person_id, "name": portrait.name},
        )
        row(portrait.name, "original", f"enrolled ({response.status_code})", response.status_code == 201)
    for portrait in portraits:
        for version, make in VERSIONS.items():
            started = time.perf_counter()
            response = client.post("/identify", files={"image": make(portrait.pixels)})
            elapsed_ms = (time.perf_counter() - started) * 1e3
            if response.status_code != 200:
                row(portrait.name, version, response.json()["title"], False)
                continue
            face = response.json()["faces"][0]
            best, decision = face["matches"][0], face["decision"]
            answer = best["name"] if decision["identified"] else "nobody"
            good = decision["person_id"] == portrait.person_id
            figures = (f"{best['similarity']:.3f}", f"{decision['threshold']:.3f}", f"{elapsed_ms:.0f}")
            row(portrait.name, version, answer, good, *figures)
    for call in ("/enroll", "/identify"):
        response = client.post(call, files={"image": jpeg(faceless)})
        refused = response.status_code == 422 and response.json()["type"].endswith(":no-face")
        row(
            "a temple, no face", f"{call}", f"{response.json().get('title', 'taken')} ({response.status_code})", refused
        )
    console.print(table)
    return all(outcomes)


@contextlib.contextmanager
def _serving(settings: Settings) -> Iterator[str]:
    server = Server(settings, log_level="error")
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise DemoError("the service did not start")
            time.sleep(0.05)
        yield f"http://{settings.host}:{settings.port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        # Without this a port in TIME_WAIT would look busy, and uvicorn itself would take it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
