"""The console's job in a real browser, on a real service with the shipped models."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from prometheus_client.parser import text_string_to_metric_families

from service.demo import VERSIONS, jpeg, load_faceless, load_portraits
from tests.attribute_networks import gender_and_age, liveness
from tests.e2e.conftest import Service
from tests.e2e.console.browser import KNOWN, UNKNOWN, Console, enrol, outlined, persons, side_by_side, stored_turned

pytestmark = pytest.mark.browser


def test_somebody_is_enrolled_in_place_found_in_changed_pictures_and_erased(
    console: Console, service: Service, gallery: str
) -> None:
    page, portrait = console.page, load_portraits()[0]
    console.open(gallery)
    answer = console.give(jpeg(portrait.pixels))
    expect(console.faces().get_by_role("heading")).to_have_text("Unknown")
    # Dashes cover about half of the line.
    assert outlined(console.picture(), answer, 0, UNKNOWN) > 0.35
    page.get_by_label("Name", exact=True).fill(portrait.name)
    page.get_by_role("button", name="Enrol", exact=True).click()
    expect(console.faces().get_by_role("heading")).to_have_text(portrait.name)
    expect(page.get_by_role("status")).to_contain_text("enrolled, and it is on disk")

    for version in ("mirrored", "JPEG 40", "half size"):
        answer = console.give(VERSIONS[version](portrait.pixels))
        best = answer["faces"][0]["matches"][0]
        expect(console.faces().get_by_role("heading")).to_have_text(portrait.name)
        odds = console.imported("format.js", "module.odds(argument)", best["fpir"])
        expect(console.faces()).to_contain_text(f"{best['similarity']:.2f}, chance of a stranger {odds}")
        assert outlined(console.picture(), answer, 0, KNOWN) > 0.8, version
    expect(page.locator("#picture")).to_have_attribute("aria-label", f"The picture with 1 face: {portrait.name}")
    for term in ("0.2", "1 in 100", f"1 face in {gallery}", answer["model"]["embedder"], "search"):
        expect(page.locator("#terms")).to_contain_text(term)

    page.get_by_role("button", name="Add this face").click()
    expect(page.locator("#figure-faces")).to_have_text("2 faces")
    page.get_by_role("button", name="Open person").click()
    expect(page.get_by_alt_text(f"Face of {portrait.name}")).to_have_count(2)
    page.get_by_role("button", name="Erase person").click()
    page.get_by_role("dialog").get_by_role("button", name="Erase", exact=True).click()
    receipt = page.get_by_role("dialog", name="Receipt")
    for line in ("Persons1", "Faces2", "Index entries2", "Crops2", "Cache entries0", "Revision"):
        expect(receipt.locator("dl")).to_contain_text(line)
    receipt.get_by_role("button", name="Close").click()
    assert persons(service, gallery) == []
    expect(page.locator("#page")).to_have_text("Nobody is enrolled")
    # The picture looked at before is asked about anew, so that it names nobody who is gone.
    console.view("Identify")
    expect(console.faces()).to_contain_text("Nobody is enrolled to compare with")


def test_masks_are_told_of_where_the_box_is_ticked_and_heads_always(console: Console, gallery: str) -> None:
    page, portrait = console.page, load_portraits()[0]
    console.open(gallery)
    answer = console.give(jpeg(portrait.pixels))
    posture = console.imported("format.js", "module.posture(argument)", answer["faces"][0]["quality"])
    expect(console.faces()).to_contain_text(posture)
    expect(console.faces()).not_to_contain_text("mask")
    page.get_by_role("checkbox", name="Masks").check()
    expect(console.faces()).to_contain_text("no mask (")
    page.get_by_role("checkbox", name="Masks").uncheck()
    expect(console.faces()).not_to_contain_text("mask")


def test_what_brought_networks_tell_is_shown_where_the_box_is_ticked(
    new_service: Callable[..., Service], new_page: Callable[..., Page], tmp_path: Path
) -> None:
    networks = [str(gender_and_age(tmp_path)), str(liveness(tmp_path, "near", 2.7))]
    service = new_service(SHRINKFACE_ATTRIBUTE_MODELS=json.dumps(networks))
    service.start()
    console = Console(new_page(), service.url)
    console.open()
    box = console.page.get_by_role("checkbox", name="Age, gender, liveness")
    expect(box).to_be_hidden()
    console.give(jpeg(load_portraits()[0].pixels))
    expect(console.faces()).not_to_contain_text("liveness")
    with console.page.expect_response(lambda response: response.url.endswith("/identify")) as answered:
        box.check()
    told = answered.value.json()["faces"][0]["attributes"]
    assert set(told) == {"age", "gender", "liveness"}
    expect(console.faces()).to_contain_text(f"gender {told['gender']['value']} (")
    expect(console.faces()).to_contain_text(re.compile(r"age [\d.]+ years"))
    expect(console.faces()).to_contain_text(f"liveness {'yes' if told['liveness']['value'] else 'no'} (")
    expect(console.page.locator("#terms")).to_contain_text("liveness")
    assert console.errors == []


def test_heads_are_told_in_words(console: Console, gallery: str) -> None:
    console.open(gallery)
    for angles, words in (
        ((0, 4.9, -4), "Looks ahead"),
        ((12.4, 0, 0), "Head turned 12° to the right"),
        ((-30, -8, -20.6), "Head turned 30° to the left, 8° down, tilted 21° anticlockwise"),
        ((0, 9, 5), "Head 9° up, tilted 5° clockwise"),
    ):
        quality = dict(zip(("yaw_deg", "pitch_deg", "roll_deg"), angles, strict=True))
        assert console.imported("format.js", "module.posture(argument)", quality) == words
    assert console.imported("format.js", "module.posture(argument)", {"yaw_deg": None, "roll_deg": 3}) is None


def test_of_several_faces_the_one_meant_is_enrolled_alone(console: Console, service: Service, gallery: str) -> None:
    collins, hopper = load_portraits()
    enrol(service, gallery)
    console.open(gallery)
    # So near each other that the cut around one face holds the other too.
    close = side_by_side([collins.pixels[:, 165:285], hopper.pixels[:, 165:420]])
    console.give(jpeg(close))
    expect(console.faces().get_by_role("heading")).to_have_text(["Unknown", collins.name])
    unknown = console.faces().filter(has_text="Unknown")
    unknown.get_by_text("Enrol this face").click()
    unknown.get_by_label("Name").fill(hopper.name)
    unknown.get_by_label("Person id").fill(hopper.person_id)
    unknown.get_by_role("button", name="Enrol", exact=True).click()
    expect(console.faces().get_by_role("heading")).to_have_text([hopper.name, collins.name])
    (face,) = httpx.post(
        f"{service.url}/identify", files={"image": jpeg(hopper.pixels)}, data={"gallery": gallery}, timeout=30
    ).json()["faces"]
    assert face["decision"]["person_id"] == hopper.person_id
    assert face["matches"][0]["similarity"] > 0.8


@pytest.mark.slow
def test_what_goes_wrong_in_an_enrolment_is_said(service: Service, gallery: str, new_page: Callable[..., Page]) -> None:
    enrol(service, gallery)
    console = Console(new_page(), service.url)
    console.open(gallery)
    console.give(jpeg(load_portraits()[1].pixels))
    face = console.faces()
    face.get_by_label("Name").fill("Somebody")
    face.get_by_label("Person id").fill("eileen-collins")
    face.get_by_role("button", name="Enrol", exact=True).click()
    expect(face.get_by_role("alert")).to_contain_text("The person exists already")
    # Under an id of her own she is somebody who looks like Eileen Collins: a threshold of nearly nothing says so.
    httpx.patch(f"{service.url}/v1/galleries/{gallery}", json={"target_fpir": 0.9}, timeout=30).raise_for_status()
    face.get_by_label("Person id").fill("grace-hopper")
    face.get_by_role("button", name="Enrol", exact=True).click()
    expect(console.page.locator("#conflicts")).to_contain_text("Eileen Collins, similarity 0.")


def test_pictures_without_a_face_and_files_without_a_picture_are_refused(
    service: Service, new_page: Callable[..., Page]
) -> None:
    console = Console(new_page(), service.url)
    console.open()
    outcome = console.page.locator("#outcome")
    console.drop(b"not a picture", "text/plain")
    expect(outcome).to_contain_text("not a picture that can be shown")
    console.drop(jpeg(load_faceless()), "image/jpeg")
    expect(outcome).to_contain_text("No face was found")
    expect(console.page.locator("#busy")).to_be_hidden()


# Chromium turns JPEG and PNG by itself; in WebP it does not look at the tag, so there all of them are tried.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_name", "orientations"), [("JPEG", (3, 6)), ("PNG", (3, 6)), ("WEBP", (2, 3, 4, 5, 6, 7, 8))]
)
def test_a_picture_that_its_tag_turns_has_its_boxes_where_the_faces_are(
    console: Console, gallery: str, format_name: str, orientations: tuple[int, ...]
) -> None:
    upright = cv2.cvtColor(load_portraits()[1].pixels, cv2.COLOR_BGR2RGB)
    console.open(gallery)
    for orientation in orientations:
        exif, stream = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.fromarray(stored_turned(upright)[orientation]).save(stream, format_name, exif=exif)
        answer = console.give(stream.getvalue(), media_type=f"image/{format_name.lower()}")
        assert (answer["width"], answer["height"]) == (upright.shape[1], upright.shape[0]), orientation
        shown = console.picture()
        assert outlined(shown, answer, 0, UNKNOWN) > 0.35, orientation
        expected = cv2.resize(upright, (shown.shape[1], shown.shape[0]), interpolation=cv2.INTER_AREA)
        assert float(np.median(np.abs(shown.astype(int) - expected.astype(int)))) < 8, orientation


@pytest.mark.slow
def test_no_box_is_drawn_where_browser_and_service_turn_a_picture_differently(
    console: Console, service: Service, gallery: str
) -> None:
    def turned(route: Route) -> None:
        # The browsers of these tests read every tag that the service reads; one that does not gets other sides.
        answer = route.fetch()
        body = answer.json()
        route.fulfill(response=answer, json={**body, "width": body["height"], "height": body["width"]})

    console.open(gallery)
    console.page.route("**/identify", turned)
    portrait = load_portraits()[1]
    assert portrait.pixels.shape[0] != portrait.pixels.shape[1]
    console.give(jpeg(portrait.pixels))
    expect(console.page.locator("#outcome")).to_contain_text("Boxes cannot be shown")
    # The whole picture shows one face, so it can be enrolled all the same.
    console.page.get_by_label("Name", exact=True).fill("Grace Hopper")
    console.page.get_by_role("button", name="Enrol", exact=True).click()
    expect(console.faces().get_by_role("heading")).to_have_text("Grace Hopper")
    assert persons(service, gallery)[0]["name"] == "Grace Hopper"


def test_camera_and_clipboard_give_pictures_too(console: Console, service: Service, gallery: str) -> None:
    page, portrait = console.page, load_portraits()[0]
    enrol(service, gallery)
    console.open(gallery)
    console.give(jpeg(portrait.pixels), kind="paste")
    expect(console.faces().get_by_role("heading")).to_have_text(portrait.name)
    console.give(jpeg(load_portraits()[1].pixels), kind="paste")
    expect(console.faces().get_by_role("heading")).to_have_text("Unknown")
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take picture").click()
    expect(console.faces().get_by_role("heading")).to_have_text(portrait.name)
    assert page.locator("#video").evaluate("(video) => video.srcObject") is None


def test_people_are_paged_filtered_renamed_and_their_faces_shown_and_erased(
    console: Console, service: Service, gallery: str, new_page: Callable[..., Page]
) -> None:
    page = console.page
    enrol(service, gallery)
    url = f"{service.url}/v1/galleries/{gallery}/persons"
    with httpx.Client(timeout=30) as client:
        for number in range(30):
            client.post(url, json={"person_id": f"p{number:02}", "name": f"Person {number}"}).raise_for_status()
    console.open(gallery)
    console.view("People")
    rows = page.locator("#people tbody tr")
    expect(rows).to_have_count(25)
    page.get_by_role("button", name="Next").click()
    expect(rows).to_have_count(6)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    expect(rows).to_have_count(25)
    page.get_by_label("Name contains").fill("EILEEN")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Eileen Collins").click()
    crop = page.get_by_alt_text("Face of Eileen Collins")
    expect(crop).to_be_visible()
    page.wait_for_function("document.querySelector('#person-body img').naturalWidth === 112")

    # Her name is text, whatever it holds.
    hostile = "<img src=x onerror=alert(1)>"
    page.get_by_label("Name", exact=True).fill(hostile)
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("#heading-person")).to_have_text(hostile)
    assert httpx.get(f"{url}/eileen-collins").json()["name"] == hostile

    page.get_by_role("button", name=re.compile("^Erase face")).click()
    page.get_by_role("dialog").get_by_role("button", name="Erase", exact=True).click()
    expect(page.get_by_role("dialog", name="Receipt").locator("dl")).to_contain_text("Persons0Faces1")
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("heading", name="0 faces")).to_be_visible()


@pytest.mark.slow
def test_a_person_who_was_changed_meanwhile_is_reloaded(
    service: Service, gallery: str, new_page: Callable[..., Page]
) -> None:
    enrol(service, gallery)
    console = Console(new_page(), service.url)
    page = console.page
    console.open(gallery)
    console.view("People")
    page.get_by_role("button", name="Eileen Collins").click()
    url = f"{service.url}/v1/galleries/{gallery}/persons/eileen-collins"
    httpx.patch(url, json={"name": "E. Collins"}, timeout=30).raise_for_status()
    page.get_by_label("Name", exact=True).fill("Mine")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("alert")).to_contain_text("Changed meanwhile")
    expect(page.locator("#heading-person")).to_have_text("E. Collins")
    httpx.patch(url, json={"name": "Eileen"}, timeout=30).raise_for_status()
    page.get_by_role("button", name="Erase person").click()
    page.get_by_role("dialog").get_by_role("button", name="Erase", exact=True).click()
    expect(page.locator("#heading-person")).to_have_text("Eileen")
    assert len(persons(service, gallery)) == 1


def test_galleries_are_begun_configured_and_erased(console: Console, service: Service) -> None:
    page = console.page
    console.open()
    console.view("Galleries")
    page.get_by_label("New gallery").fill("night-shift")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_label("Gallery", exact=True)).to_have_value("night-shift")
    page.get_by_role("button", name="Settings of night-shift").click()
    page.get_by_label("Target rate of false positives").fill("0.001")
    page.get_by_label("Quality a face must have").select_option("strict")
    page.get_by_label("Keep aligned crops").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name=re.compile("night-shift"))).to_contain_text("1 in 1,000strictkept")
    settings = httpx.get(f"{service.url}/v1/galleries/night-shift").json()["settings"]
    assert settings == {"target_fpir": 0.001, "quality_gate": "strict", "keep_crops": True}
    page.get_by_role("button", name="Erase night-shift").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Erase", exact=True)).to_be_disabled()
    dialog.get_by_label("to go on").fill("night-shift")
    dialog.get_by_role("button", name="Erase", exact=True).click()
    page.get_by_role("dialog", name="Receipt").get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="night-shift", exact=True)).to_have_count(0)
    assert httpx.get(f"{service.url}/v1/galleries/night-shift").status_code == 404


@pytest.mark.slow
def test_figures_say_what_the_metrics_do(console: Console, service: Service, gallery: str) -> None:
    enrol(service, gallery)
    console.open(gallery)
    console.give(jpeg(load_portraits()[0].pixels))
    text = httpx.get(f"{service.url}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    routes = ("/identify", "/enroll")
    requests = sum(s.value for s in samples if s.name == "shrinkface_requests_total" and s.labels["route"] in routes)
    expect(console.page.locator("#figure-requests")).to_have_text(f"{requests:.0f}")
    expect(console.page.locator("#figure-faces")).to_have_text("1 face")
    expect(console.page.locator("#figure-recall")).to_have_text("100%")
    script = (
        "module.quantile(module.buckets(module.parse(argument), 'shrinkface_request_seconds', "
        "({route}) => route === '/identify'), 0.5)"
    )
    seconds = console.imported("metrics.js", script, text)
    buckets = [
        (float(s.labels["le"]), s.value)
        for s in samples
        if s.name == "shrinkface_request_seconds_bucket" and s.labels["route"] == "/identify"
    ]
    upper = next(le for le, count in buckets if count >= buckets[-1][1] / 2)
    lower = max((le for le, _ in buckets if le < upper), default=0.0)
    assert lower < seconds <= upper
    expect(console.page.locator("#figure-p50")).to_contain_text(re.compile(r"^≈ [\d.]+ m?s$"))
