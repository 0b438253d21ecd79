"""What the console's page promises whatever it is used for: nothing leaves, nothing is kept, nobody is kept out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from service.access import Scope
from service.access.keys import KeyFile
from service.demo import jpeg, load_portraits
from tests.e2e.conftest import Service
from tests.e2e.console.browser import Console, both_portraits, enrol, persons

pytestmark = pytest.mark.browser

_STATIC = Path(__file__).parents[3] / "service" / "console" / "static"
_FOCUSED = """() => {
  const node = document.activeElement;
  return (node.labels?.[0]?.textContent ?? node.getAttribute("aria-label") ?? node.textContent).trim();
}"""


@pytest.mark.slow
def test_figures_are_estimated_and_written_with_care(console: Console) -> None:
    console.open()
    cumulative = [{"le": 0.1, "count": 0}, {"le": 0.2, "count": 8}, {"le": 0.4, "count": 10}]
    for share, expected in ((0.5, 0.1625), (0.8, 0.2), (0.9, 0.3), (1.0, 0.4)):
        value = console.imported("metrics.js", "module.quantile(argument[0], argument[1])", [cumulative, share])
        assert value == pytest.approx(expected), share
    assert console.imported("metrics.js", "module.quantile([{le: 1, count: 0}, {le: Infinity, count: 0}], 0.5)") is None
    beyond = "module.quantile([{le: 1, count: 1}, {le: Infinity, count: 9}], 0.5) === Infinity"
    assert console.imported("metrics.js", beyond) is True
    line = 'x_total{a="b \\"c\\" \\\\ {d}, e=\\"",le="+Inf"} 1.5e3 1700000000'
    parsed = console.imported("metrics.js", "module.parse(argument).get('x_total')", f"# HELP x_total y\n{line}\n")
    assert parsed == [{"labels": {"a": 'b "c" \\ {d}, e="', "le": "+Inf"}, "value": 1500}]
    written = {2.5e-5: "1 in 40,000", 0.012: "1 in 83", 0.17: "17%", 0.999: "over 99%", 0.0: "under 1 in 1,000,000,000"}
    for rate, text in written.items():
        assert console.imported("format.js", "module.odds(argument)", rate) == text
    assert console.imported("format.js", "module.share(0.99996)") == "99.9%"


def test_a_key_is_asked_for_and_kept_nowhere(
    new_service: Callable[..., Service], new_page: Callable[..., Page]
) -> None:
    service = new_service(SHRINKFACE_AUTH="on")
    service.data_dir.mkdir()
    _, token = KeyFile(service.data_dir / "api-keys.json").create(Scope.ADMIN)
    service.start()
    page = new_page()
    console = Console(page, service.url)
    console.open()
    dialog = page.get_by_role("dialog", name="API key")
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    for attempt, refusal in (("ein Schlüssel", "A key is a word"), (wrong, "does not take this key")):
        dialog.get_by_label("Key", exact=True).fill(attempt)
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog.get_by_role("alert")).to_contain_text(refusal)
    dialog.get_by_label("Key", exact=True).fill(token)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    portrait = load_portraits()[0]
    console.give(jpeg(portrait.pixels))
    page.get_by_label("Name", exact=True).fill(portrait.name)
    page.get_by_role("button", name="Enrol", exact=True).click()
    expect(console.faces().get_by_role("heading")).to_have_text(portrait.name)

    kept = page.evaluate(
        "async () => [localStorage.length, sessionStorage.length, (await indexedDB.databases()).length]"
    )
    assert kept == [0, 0, 0]
    assert page.context.cookies() == []
    assert token not in page.content() and token not in page.url
    assert not any(token in url for url in console.requests)
    # Each complaint of the browser is a refusal that was asked for.
    assert {re.sub(r"\d+ \(.*", "", error) for error in console.errors} <= {
        "Failed to load resource: the server responded with a status of "
    }
    page.get_by_role("button", name="Forget key").click()
    expect(dialog).to_be_visible()
    expect(console.faces()).to_have_count(0)
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Enter key")).to_be_visible()


def test_nothing_keeps_people_out(service: Service, gallery: str, new_page: Callable[..., Page]) -> None:
    enrol(service, gallery)
    # Without transitions: a colour on its way to another has no contrast of its own.
    page = new_page(reduced_motion="reduce")
    console = Console(page, service.url)
    ground = "getComputedStyle(document.body).backgroundColor"

    def check(where: str) -> None:
        grounds = set()
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            expect(page.locator("html")).to_have_attribute("data-theme", theme)
            grounds.add(page.evaluate(ground))
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            bad = [
                (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
            ]
            assert bad == [], (where, theme)
        assert len(grounds) == 2

    console.open(gallery)
    check("empty")
    console.give(jpeg(both_portraits()))
    for summary in page.locator("#faces summary").all():
        summary.click()
    check("identified")
    page.get_by_role("button", name="Open person").click()
    expect(page.get_by_alt_text("Face of Eileen Collins")).to_be_visible()
    check("person")
    page.get_by_role("button", name="Erase person").click()
    check("erase")
    page.keyboard.press("Escape")
    console.view("Galleries")
    page.get_by_role("button", name=f"Settings of {gallery}").click()
    check("settings")
    page.keyboard.press("Escape")
    before = page.evaluate(ground)
    page.get_by_role("button", name="Dark", exact=True).click()
    assert page.evaluate(ground) != before


def test_the_keyboard_is_enough(console: Console, service: Service, gallery: str) -> None:
    page, portrait = console.page, load_portraits()[0]
    picture = {"name": "p.jpg", "mimeType": "image/jpeg", "buffer": jpeg(portrait.pixels)}
    # From the beginning: the browser takes a moment to hand its file dialogs over.
    page.on("filechooser", lambda chooser: chooser.set_files(picture))
    console.open(gallery)

    def tab_to(label: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(_FOCUSED) == label:
                return
        raise AssertionError(f"no Tab reaches {label}")

    page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED) == "Skip to content"
    reached = ["Skip to content"]
    for _ in range(10):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(_FOCUSED))
    controls = ["Identify", "People", "Galleries", "Gallery", "Dark", "Choose a picture", "Camera", "False positives"]
    assert reached[1:10] == [*controls, "Exact search"]
    page.reload()
    page.get_by_label("Gallery", exact=True).select_option(gallery)
    tab_to("Choose a picture")
    page.keyboard.press("Enter")
    expect(console.faces()).to_have_count(1)
    tab_to("Name")
    page.keyboard.type(portrait.name)
    page.keyboard.press("Enter")
    expect(console.faces().get_by_role("heading")).to_have_text(portrait.name)
    tab_to("Open person")
    page.keyboard.press("Enter")
    expect(page.locator("#heading-person")).to_be_focused()
    tab_to("Erase person")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Receipt")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#heading-people")).to_be_focused()
    assert persons(service, gallery) == []


@pytest.mark.slow
def test_a_narrow_window_needs_no_sideways_scrolling(
    service: Service, gallery: str, new_page: Callable[..., Page]
) -> None:
    enrol(service, gallery, name="A" * 60, person_id="b" * 100)
    page = new_page(viewport={"width": 360, "height": 740})
    console = Console(page, service.url)
    console.open(gallery)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    console.give(jpeg(both_portraits()))
    for summary in page.locator("#faces summary").all():
        summary.click()
    assert page.evaluate(fits)
    page.get_by_role("button", name="Open person").click()
    expect(page.locator("#person-body img")).to_be_visible()
    assert page.evaluate(fits)
    console.view("Galleries")
    assert page.evaluate(fits)


def test_the_page_is_served_with_headers_that_keep_others_out(service: Service) -> None:
    names = [path.name for path in _STATIC.iterdir()]
    assert {"index.html", "console.js", "console.css", "icon.svg"} <= set(names)
    with httpx.Client(base_url=service.url) as client:
        for path in ("/", *(f"/console/{name}" for name in names)):
            answer = client.get(path)
            assert answer.status_code == 200, path
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["permissions-policy"] == "camera=(self)"
            assert answer.headers["cache-control"] == "no-cache"
            known = client.get(path, headers={"If-None-Match": f'"other", {answer.headers["etag"]}'})
            assert (known.status_code, known.content) == (304, b"")
            assert client.head(path).headers["etag"] == answer.headers["etag"]
        for path in ("/console/", "/console/nothing.js", "/console/..%2froutes.py", "/console/%2e%2e/routes.py"):
            assert client.get(path).status_code == 404, path
        paths = client.get("/openapi.json").json()["paths"]
    assert [path for path in paths if "console" in path or path == "/"] == []


def test_no_script_makes_markup_of_text_or_keeps_anything() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(|localStorage|sessionStorage|cookie"
        r"|https?://(?!www\.w3\.org/2000/svg)"
    )
    for path in _STATIC.iterdir():
        assert not forbidden.search(path.read_text()), path.name
    page = (_STATIC / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page)
