"""The commands on a data folder of their own and on a service, with the shipped networks and real portraits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from service.contract import read_manifest
from service.demo import VERSIONS, jpeg, load_faceless, load_portraits
from service.settings import Settings
from tests.attribute_networks import gender_and_age
from tests.e2e.conftest import Service


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Commands that configure the logs do so for standard error as it is while they run."""
    yield
    structlog.reset_defaults()


def run(*arguments: object, typed: str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=typed, env={"COLUMNS": "200", **environment})


def done(*arguments: object, **environment: str) -> str:
    result = run(*arguments, **environment)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def lines(*arguments: object, **environment: str) -> list[dict]:
    return [json.loads(line) for line in done(*arguments, "--json", **environment).splitlines()]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    eileen, grace = (portrait.pixels for portrait in load_portraits())
    contents = {
        "eileen": jpeg(eileen),
        "eileen-mirrored": VERSIONS["mirrored"](eileen),
        "eileen-darker": VERSIONS["darker"](eileen),
        "grace": jpeg(grace),
        "temple": jpeg(load_faceless()),
    }
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return {name: folder / f"{name}.jpg" for name in contents}


def test_people_are_enrolled_and_identified_within_the_process(pictures: dict[str, Path], tmp_path: Path) -> None:
    local = ("--local", "--data-dir", tmp_path / "data")
    (enrolled,) = lines(
        "enroll", pictures["eileen"], pictures["eileen-mirrored"], "--person-id", "eileen", "--name", "Eileen",
        "--metadata", '{"floor": 3}', *local,
    )  # fmt: skip
    assert (len(enrolled["faces"]), enrolled["person"]["metadata"]) == (2, {"floor": 3})
    assert "enrolled before" in done(
        "enroll", pictures["eileen"], "--person-id", "eileen", "--on-existing", "extend", *local
    )
    taken = run("enroll", pictures["grace"], "--person-id", "eileen", *local)
    assert (taken.exit_code, "(person-exists)" in taken.stderr, taken.stdout) == (1, True, "")
    alike = run("enroll", pictures["eileen-darker"], "--on-conflict", "reject", "--person-id", "other", *local)
    assert (alike.exit_code, "(looks-like-another)" in alike.stderr) == (1, True)
    faceless = run("enroll", pictures["eileen"], pictures["temple"], *local)
    assert (faceless.exit_code, f"{pictures['temple']}: picture 1 shows no face" in faceless.stderr) == (1, True)

    probes = (pictures["eileen-darker"], pictures["temple"], tmp_path / "absent.jpg", pictures["grace"])
    found = run("identify", *probes, "--json", "--fail-unknown", *local)
    assert found.exit_code == 1
    known, temple, absent, stranger = map(json.loads, found.stdout.splitlines())
    assert known["faces"][0]["decision"]["person_id"] == "eileen"
    assert (temple["picture"], temple["problem"]["type"][-7:]) == (str(pictures["temple"]), "no-face")
    assert "No such file" in absent["problem"]["detail"]
    assert stranger["faces"][0]["decision"]["identified"] is False
    table = done("identify", *probes[::3], *local)
    assert "Eileen" in table
    assert "nobody" in table
    assert "mask" not in table
    told = done("identify", probes[0], "--masks", *local)
    assert "mask" in told
    assert "none" in told
    assert run("identify", *probes[::3], "--fail-unknown", *local).exit_code == 3
    assert run("identify", probes[0], "--fail-unknown", "--among", "eileen", *local).exit_code == 0

    assert "the same person" in done("verify", pictures["eileen"], pictures["eileen-darker"], *local)
    (different,) = lines("verify", pictures["grace"], "--person-id", "eileen", *local)
    assert different["same"] is False
    assert run("verify", pictures["grace"], pictures["eileen"], "--fail-different", *local).exit_code == 3
    assert run("verify", pictures["grace"], *local).exit_code == 2


@pytest.fixture
def site(pictures: dict[str, Path]) -> Iterator[str]:
    """The pictures at addresses."""

    class Site(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(pictures["eileen"].parent)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pictures_are_taken_from_addresses_and_attributes_are_told(
    pictures: dict[str, Path], site: str, tmp_path: Path
) -> None:
    local = ("--local", "--data-dir", tmp_path / "data")
    brought = {"SHRINKFACE_ATTRIBUTE_MODELS": json.dumps([str(gender_and_age(tmp_path))])}
    (enrolled,) = lines("enroll", f"{site}/eileen.jpg", pictures["eileen-mirrored"], "--person-id", "eileen", *local)
    assert len(enrolled["faces"]) == 2
    asked = ("--attribute", "age", "--attribute", "gender")
    probes = (f"{site}/eileen-darker.jpg", f"{site}/absent.jpg?key=secret", f"{site}/")
    found = run("identify", *probes, *asked, "--json", *local, **brought)
    assert found.exit_code == 1
    known, absent, page = map(json.loads, found.stdout.splitlines())
    assert known["picture"] == probes[0]
    assert known["faces"][0]["decision"]["person_id"] == "eileen"
    assert known["faces"][0]["attributes"]["age"]["unit"] == "years"
    assert known["faces"][0]["attributes"]["gender"]["value"] in ("female", "male")
    assert absent["problem"]["detail"] == f"{site}/absent.jpg answers with status 404"
    assert page["problem"]["detail"] == f"{site}/ is text/html, no picture"
    table = done("identify", probes[0], *asked, "--masks", *local, **brought)
    assert [word in table for word in ("mask", "age", "gender", "male (0.", "none", "eileen")] == [True] * 6
    said = done("verify", f"{site}/eileen.jpg", f"{site}/eileen-darker.jpg", "--attribute", "mask", *local)
    assert "the same person" in said
    assert "first face: mask none" in said
    missing = run("verify", f"{site}/eileen.jpg", "--person-id", "eileen", "--attribute", "liveness", *local)
    assert (missing.exit_code, "no network for liveness; it has one for mask" in missing.stderr) == (1, True)
    refused = run("enroll", "ftp://127.0.0.1/eileen.jpg", *local)
    assert (refused.exit_code, "http and https, not ftp" in refused.stderr) == (1, True)


def test_galleries_and_persons_are_looked_after_within_the_process(pictures: dict[str, Path], tmp_path: Path) -> None:
    local = ("--local", "--data-dir", tmp_path / "data")
    done("enroll", pictures["eileen"], "--person-id", "eileen", "--metadata", '{"floor": 3}', *local)
    # What a terminal would obey is not printed.
    done("persons", "rename", "eileen", "\x1b[31mEileen \N{BELL}\x07[red]", *local)
    shown = done("persons", "show", "eileen", *local)
    assert "\x1b" not in shown
    assert "[31mEileen" in shown
    assert "floor" in shown
    (person,) = lines("persons", "list", "--metadata", "floor=3", *local)
    assert person["name"].startswith("\x1b")
    assert lines("persons", "list", "--name", "nobody", *local) == []

    dossier = tmp_path / "eileen.json"
    assert "1 faces" in done("persons", "export", "eileen", "--out", dossier, *local)
    assert json.loads(dossier.read_text())["person"]["person_id"] == "eileen"
    assert dossier.stat().st_mode & 0o077 == 0

    done("galleries", "create", "staff", "--target-fpir", "0.001", "--keep-crops", *local)
    (staff,) = lines("galleries", "configure", "staff", "--target-fpir", "default", "--quality-gate", "off", *local)
    assert staff["settings"] == {"target_fpir": None, "quality_gate": "off", "keep_crops": True}
    assert [each["name"] for each in lines("galleries", "list", *local)] == ["default", "staff"]
    assert "staff" in done("galleries", "show", "staff", *local)

    refused = run("persons", "delete", "eileen", *local, typed="n\n")
    assert (refused.exit_code, "with 1 faces from default?" in refused.stderr) == (1, True)
    assert "erased eileen in default" in done("persons", "delete", "eileen", "--yes", *local)
    assert run("persons", "show", "eileen", *local).exit_code == 1
    (receipt,) = lines("galleries", "delete", "staff", "--yes", *local)
    assert (receipt["gallery"], receipt["persons"]) == ("staff", 0)
    assert "sound" in done("gallery", "verify", "--data-dir", tmp_path / "data")


def test_a_service_that_asks_for_keys(pictures: dict[str, Path], new_service: Callable[..., Service]) -> None:
    service = new_service(SHRINKFACE_AUTH="on")
    service.start()
    there = {"SHRINKFACE_URL": service.url, "SHRINKFACE_DATA_DIR": str(service.data_dir)}
    locked = run("identify", pictures["eileen"], **there)
    assert (locked.exit_code, "(unauthenticated)" in locked.stderr) == (1, True)

    admin = done("keys", "create", "--scope", "admin", "--label", "the boss", **there).strip()
    (desk,) = lines("keys", "create", "--scope", "enroll", "--gallery", "default", "--expires-days", "1", **there)
    (gate,) = lines("keys", "create", "--scope", "identify", **there)
    assert run("keys", "create", "--scope", "identify", "--gallery", "no name", **there).exit_code == 1
    assert [key["scope"] for key in lines("keys", "list", **there)] == ["admin", "enroll", "identify"]
    table = done("keys", "list", **there)
    assert "the boss" in table
    # A secret may have that character in it.
    assert admin.split("_", 2)[2] not in table
    assert (service.data_dir / "api-keys.json").stat().st_mode & 0o077 == 0

    as_desk, as_gate = ({**there, "SHRINKFACE_API_KEY": key["api_key"]} for key in (desk, gate))
    _until(lambda: run("galleries", "list", **as_gate).exit_code == 0)
    done("enroll", pictures["eileen"], "--person-id", "eileen", "--name", "Eileen", **as_desk)
    assert "(forbidden)" in run("enroll", pictures["grace"], **as_gate).stderr
    assert "(forbidden)" in run("galleries", "delete", "default", "--yes", **as_desk).stderr
    (found,) = lines("identify", pictures["eileen-mirrored"], **as_gate)
    assert found["faces"][0]["decision"]["person_id"] == "eileen"
    done("persons", "delete", "eileen", "--yes", "--api-key", admin, **there)

    assert "revoked" in done("keys", "revoke", gate["key_id"], **there)
    assert run("keys", "revoke", gate["key_id"], **there).exit_code == 2
    _until(lambda: "(unauthenticated)" in run("galleries", "list", **as_gate).stderr)
    assert run("galleries", "list", **as_desk).exit_code == 0


def _until(holds: Callable[[], bool]) -> None:
    """A service looks at the file of keys about once a second."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_galleries_go_in_and_out_of_a_service(
    pictures: dict[str, Path], tmp_path: Path, new_service: Callable[..., Service]
) -> None:
    service = new_service()
    service.start()
    there = {"SHRINKFACE_URL": service.url, "SHRINKFACE_DATA_DIR": str(service.data_dir)}
    done("enroll", pictures["eileen"], "--person-id", "eileen", **there)
    # Sixteen to a request, under one person.
    many = lines("enroll", *[pictures["grace"]] * 17, **there)
    assert len(many) == 2
    assert {answer["person"]["person_id"] for answer in many} == {many[0]["person"]["person_id"]}
    assert len(many[1]["person"]["face_ids"]) == 1
    in_use = run("persons", "list", "--local", **there)
    assert (in_use.exit_code, "another process serves the data folder" in in_use.stderr) == (1, True)

    exported, noted = tmp_path / "people.ndjson", tmp_path / "noted.ndjson"
    assert "2 persons" in done("export", exported, "--url", service.url)
    assert exported.stat().st_mode & 0o077 == 0
    with exported.open("a") as stream:
        stream.write('{"person_id": "torn"')
    importing = ("import", exported, "--url", service.url, "--gallery", "copy", "--outcomes", noted)
    first = run(*importing)
    assert first.exit_code == 1
    assert "2 faces stored, 0 there already, of 3 persons; 1 persons failed" in first.stdout
    # Those that are stored are not sent again, and lines keep their numbers.
    assert "0 faces stored, 0 there already, of 1 persons; 1 persons failed" in run(*importing).stdout
    items = [json.loads(line).get("item") for line in noted.read_text().splitlines()]
    assert items == [None, "line 1", "line 2", "line 3", "line 3"]
    (copy,) = lines("galleries", "show", "copy", **there)
    assert (copy["persons"], copy["faces"]) == (2, 2)
    assert "no NDJSON file" in run("import", tmp_path, "--url", service.url).stderr
    away = run("export", tmp_path / "never.ndjson", "--url", "http://127.0.0.1:9")
    assert (away.exit_code, list(tmp_path.glob("never*"))) == (1, [])


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SHRINKFACE_HOST": "0.0.0.0"}, "shrinkface keys create --scope admin"),
        ({"SHRINKFACE_HOST": "0.0.0.0", "SHRINKFACE_AUTH": "off"}, "whoever can reach this service"),
        ({}, None),
    ],
)
def test_a_service_says_when_nobody_or_everybody_gets_in(
    new_service: Callable[..., Service], tmp_path: Path, environment: dict[str, str], said: str | None
) -> None:
    new_service(**environment).start()
    warnings = [
        line for line in (tmp_path / "service.log").read_text().splitlines() if json.loads(line)["level"] == "warning"
    ]
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_wrong_options_and_absent_services_are_told_of(tmp_path: Path) -> None:
    away = run("galleries", "list", "--url", "http://127.0.0.1:9")
    assert (away.exit_code, "no answer from http://127.0.0.1:9" in away.stderr) == (1, True)
    strange = run("galleries", "list", "--url", "127.0.0.1")
    assert (strange.exit_code, "begins with http" in strange.stderr) == (1, True)
    for arguments in (
        ("galleries", "list", "--data-dir", tmp_path),
        ("enroll", "a.jpg", "--metadata", "[1]"),
        ("enroll", "a.jpg", "--metadata", "{"),
        ("enroll", "a.jpg", "--on-conflict", "shrug"),
        ("enroll",),
        ("galleries", "configure", "g", "--target-fpir", "low"),
        ("persons", "list", "--metadata", "floor"),
        ("keys", "create", "--scope", "god"),
    ):
        assert run(*arguments).exit_code == 2, arguments
    dots = run("persons", "delete", "..", "--yes", "--gallery", "g")
    assert (dots.exit_code, "names nothing" in dots.stderr) == (1, True)


def test_the_models_are_shown(tmp_path: Path) -> None:
    network = gender_and_age(tmp_path)
    brought = {"SHRINKFACE_ATTRIBUTE_MODELS": json.dumps([str(network)])}
    *_, shown = lines("model", "show", **brought)
    assert (shown["model"], shown["role"], shown["tells"]) == ("genderage", "attribute-network", "gender, age")
    network.write_bytes(b"damaged")
    damaged = run("model", "show", **brought)
    assert (damaged.exit_code, "SHA-256 differs" in damaged.stderr, "detector" in damaged.stdout) == (1, True, True)
    settings = Settings()
    student, detector, masks = lines("model", "show")
    assert masks["role"] == "mask-classifier"
    assert len(lines("model", "show", SHRINKFACE_MASK_PATH="/absent.onnx")) == 2
    assert student["space_id"] == read_manifest(settings.embedder_path).space_id
    assert (detector["role"], detector["space_id"]) == ("detector", None)
    assert student["space_id"] in done("model", "show")
    absent = run("model", "show", SHRINKFACE_EMBEDDER_PATH="/absent.onnx")
    assert (absent.exit_code, "detector" in absent.stdout) == (1, True)
    # Commands of other packages are found.
    assert "verification" in done("bench", "--help")
