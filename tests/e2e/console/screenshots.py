"""Pictures of the console for the documents: `python -m tests.e2e.console.screenshots [FOLDER] [--all]`.

Shows public-domain portraits only: NASA's Eileen Collins, who is enrolled, and the US Navy's Grace Hopper, who is not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Page

from service.demo import VERSIONS, jpeg, load_portraits
from tests.e2e.conftest import Service
from tests.e2e.console.browser import both_portraits, chromium

_SHOTS = {"light": ("light", 1280, 800), "dark": ("dark", 1280, 800), "narrow": ("light", 390, 844)}


def main(folder: Path, every: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        service = Service(Path(temporary) / "data")
        service.start()
        try:
            _people(service.url)
            for name, (theme, width, height) in _SHOTS.items():
                if every or name != "narrow":
                    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                    _shoot_identify(page, service.url, folder / f"console-{name}.png")
                    if every:
                        _shoot_others(page, folder, name)
                    page.close()
        finally:
            service.stop()


def _people(url: str) -> None:
    """A gallery with something in it, and some requests to time."""
    collins, hopper = load_portraits()
    httpx.post(f"{url}/v1/galleries", json={"name": "crew", "keep_crops": True}, timeout=30).raise_for_status()
    fields = {"gallery": "crew", "person_id": collins.person_id, "name": collins.name}
    for picture in (jpeg(collins.pixels), VERSIONS["half size"](collins.pixels)):
        httpx.post(
            f"{url}/enroll", files={"image": picture}, data={**fields, "on_existing": "extend"}, timeout=30
        ).raise_for_status()
    for picture in (collins, hopper):
        for make in VERSIONS.values():
            httpx.post(f"{url}/identify", files={"image": make(picture.pixels)}, data={"gallery": "crew"}, timeout=30)


def _shoot_identify(page: Page, url: str, path: Path) -> None:
    page.goto(url)
    page.locator("#gallery").select_option("crew")
    page.set_input_files("#file", {"name": "p.jpg", "mimeType": "image/jpeg", "buffer": jpeg(both_portraits())})
    page.locator("#faces li").nth(1).wait_for()
    unknown = page.locator("#faces li").first
    unknown.get_by_text("Enrol this face").click()
    unknown.get_by_label("Name").fill("Grace Hopper")
    page.mouse.move(5, 5)
    # The next reading of the figures, and the message gone.
    page.wait_for_timeout(9000)
    page.evaluate("scrollTo(0, 0)")
    _save(page, path)


def _shoot_others(page: Page, folder: Path, name: str) -> None:
    page.get_by_role("link", name="People").click()
    page.get_by_role("button", name="Eileen Collins").click()
    page.locator("#person-body img").nth(1).wait_for()
    page.wait_for_timeout(300)
    _save(page, folder / f"console-{name}-people.png")
    page.get_by_role("link", name="Galleries").click()
    _save(page, folder / f"console-{name}-galleries.png")


def _save(page: Page, path: Path) -> None:
    """A palette of 256 colours: a third of the size, and no difference to the eye."""
    page.screenshot(path=path)
    with Image.open(path) as shot:
        shot.convert("RGB").quantize(256, kmeans=3).save(path, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    parser.add_argument("--all", action="store_true", help="also a narrow page and the other views")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.all)
