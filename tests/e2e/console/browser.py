"""Chromium for tests of the console: the browser, a page that notes what goes wrong, and the pictures it is shown."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from service.demo import jpeg, load_portraits
from tests.e2e.conftest import Service

# Lines around known and unknown faces, RGB.
KNOWN, UNKNOWN = (46, 196, 182), (255, 176, 32)

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DROP = """([target, kind, base64, type]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "picture", { type }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector(target).dispatchEvent(event);
}"""
_PIXELS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
  return { width: canvas.width, height: canvas.height, data: btoa(text) };
}"""


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A headless Chromium; without one a skip, and in CI a failure."""
    path = next((found for name in _NAMES if (found := shutil.which(name)) is not None), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed, and CI must not skip what needs it")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", *arguments]
        )
        yield browser
        browser.close()


@dataclass
class Console:
    """The console in a page of its own.

    Attributes:
        errors: what the browser complained of: scripts, the content security policy, answers with an error status.
        requests: URLs of everything the page asked for.
    """

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, gallery: str | None = None) -> None:
        self.page.goto(f"{self.url}/")
        if gallery is not None:
            self.page.get_by_label("Gallery", exact=True).select_option(gallery)

    def give(self, picture: bytes, kind: str = "drop", media_type: str = "image/jpeg") -> dict[str, Any]:
        """Drop or paste a picture; the service's answer, once it is shown."""
        with self.page.expect_response(lambda response: response.url.endswith("/identify")) as answered:
            self.page.evaluate(_DROP, ["#stage", kind, base64.b64encode(picture).decode(), media_type])
        expect(self.page.locator("#busy")).to_be_hidden()
        return answered.value.json()

    def drop(self, content: bytes, media_type: str) -> None:
        """Drop what may be no picture."""
        self.page.evaluate(_DROP, ["#stage", "drop", base64.b64encode(content).decode(), media_type])

    def faces(self) -> Locator:
        return self.page.locator("#faces > li")

    def picture(self) -> NDArray[np.uint8]:
        """What the canvas shows, (height, width, 3) uint8 RGB."""
        shown = self.page.locator("#picture").evaluate(_PIXELS)
        pixels = np.frombuffer(base64.b64decode(shown["data"]), dtype=np.uint8)
        return pixels.reshape(shown["height"], shown["width"], 4)[..., :3]

    def view(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).click()

    def imported(self, module: str, expression: str, argument: Any = None) -> Any:
        """What an expression over a module of the page gives; it may use `module` and `argument`."""
        script = f"async ([path, argument]) => {{ const module = await import(path); return {expression}; }}"
        return self.page.evaluate(script, [f"{self.url}/console/{module}", argument])


def outlined(picture: NDArray[np.uint8], answer: dict[str, Any], face: int, colour: tuple[int, int, int]) -> float:
    """Share of a face's box whose border has a colour in what the canvas shows; the label may hide the upper side."""
    scale = picture.shape[1] / answer["width"]
    box = {name: value * scale for name, value in answer["faces"][face]["box"].items()}
    rows = np.arange(round(box["y"]) + 4, round(box["y"] + box["height"]) - 4)
    columns = np.arange(round(box["x"]) + 4, round(box["x"] + box["width"]) - 4)
    left, right, bottom = round(box["x"]), round(box["x"] + box["width"]), round(box["y"] + box["height"])
    sides = [picture[rows, left], picture[rows, right], picture[bottom, columns]]
    near = np.concatenate([np.abs(side.astype(int) - colour).max(axis=1) < 60 for side in sides])
    return float(near.mean())


def stored_turned(upright: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
    """A picture as a file holds it whose EXIF orientation makes it upright again, by that orientation."""
    mirrored, transposed = upright[:, ::-1], upright.transpose(1, 0, 2)
    stored = {
        2: mirrored, 3: upright[::-1, ::-1], 4: upright[::-1],
        5: transposed, 6: transposed[::-1], 7: transposed[::-1, ::-1], 8: transposed[:, ::-1],
    }  # fmt: skip
    return {orientation: np.ascontiguousarray(pixels) for orientation, pixels in stored.items()}


def side_by_side(pictures: Sequence[NDArray[np.uint8]], height_px: int = 560) -> NDArray[np.uint8]:
    """One picture of several, each scaled to one height; uint8 BGR."""
    scaled = [
        cv2.resize(
            picture, (round(picture.shape[1] * height_px / picture.shape[0]), height_px), interpolation=cv2.INTER_AREA
        )
        for picture in pictures
    ]
    return np.asarray(np.hstack(scaled), dtype=np.uint8)


def both_portraits() -> NDArray[np.uint8]:
    """Eileen Collins beside Grace Hopper."""
    return side_by_side([portrait.pixels for portrait in load_portraits()])


def film(path: Path, picture: NDArray[np.uint8]) -> Path:
    """A Motion-JPEG file of one picture, for Chromium's `--use-file-for-fake-video-capture`."""
    height, width = (side - side % 2 for side in picture.shape[:2])
    path.write_bytes(jpeg(picture[:height, :width]) * 10)
    return path


def enrol(service: Service, gallery: str, **fields: str) -> None:
    """Enrol Eileen Collins past the console."""
    portrait = load_portraits()[0]
    data = {"gallery": gallery, "person_id": portrait.person_id, "name": portrait.name, **fields}
    answer = httpx.post(f"{service.url}/enroll", files={"image": jpeg(portrait.pixels)}, data=data, timeout=30)
    assert answer.status_code == 201, answer.text


def persons(service: Service, gallery: str) -> list[dict]:
    return httpx.get(f"{service.url}/v1/galleries/{gallery}/persons", timeout=30).json()["persons"]
