"""One Chromium and one service for all tests of the console; a gallery and a browser context for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page

from service.demo import load_portraits
from tests.e2e.conftest import Service
from tests.e2e.console.browser import Console, chromium, film


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its camera sees Eileen Collins."""
    seen = film(tmp_path_factory.mktemp("film") / "camera.mjpeg", load_portraits()[0].pixels)
    with chromium(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={seen}",
    ) as started:
        yield started


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("service") / "data")
    started.start()
    yield started
    started.stop()


@pytest.fixture
def gallery(service: Service, request: pytest.FixtureRequest) -> str:
    """A gallery of the test's own, which keeps crops."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[-60:].strip("-")
    made = httpx.post(f"{service.url}/v1/galleries", json={"name": name, "keep_crops": True}, timeout=30)
    assert made.status_code == 201, made.text
    return name


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    contexts = []

    def make(**options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def console(service: Service, new_page: Callable[..., Page]) -> Iterator[Console]:
    """A console that must neither complain nor ask anybody else for anything."""
    opened = Console(new_page(), service.url)
    yield opened
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith((f"{service.url}/", f"blob:{service.url}/"))] == []
