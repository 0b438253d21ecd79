"""docker-compose.yml: what each of its services must have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.common import PORT, ROOT, VERSION, ending_s, settings_of

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("shrinkface", "replica")
# Servers whose images write beside their volumes.
WRITABLE = {"milvus", "etcd", "minio"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_bounded_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert {"mem_limit", "cpus", "pids_limit", "stop_grace_period"} <= set(service)
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only", False) == (name not in WRITABLE)
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_images_have_a_version(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.search(r"\d+\.\d+|RELEASE\.\d{4}", tag), SERVICES[name]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_unless_one_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"\$\{[A-Z_]+:-127\.0\.0\.1:\d+\}:\d+", port), port
    if name not in {*OURS, "grafana"}:
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_references_have_their_ends(name: str) -> None:
    service = SERVICES[name]
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    profiles = set(service.get("profiles", ()))
    for other in service.get("depends_on", ()):
        assert set(SERVICES[other].get("profiles", ())) <= profiles
        assert set(SERVICES[other]["networks"]) & set(service["networks"])
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]


def test_no_volume_is_left_over() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= used


@pytest.mark.parametrize("name", OURS)
def test_our_services_get_an_environment_that_they_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES[name]
    image = dict(re.findall(r"(SHRINKFACE_[A-Z_]+)=(\S+)", (ROOT / "docker" / "Dockerfile").read_text()))
    settings = settings_of({**image, **service["environment"]}, monkeypatch)
    assert settings.auth_required
    assert settings.port == PORT
    assert service["ports"][0].endswith(f":{PORT}")
    assert settings.redis_url is not None
    assert settings.redis_url.host in SERVICES
    assert str(settings.data_dir) in {volume.split(":")[1] for volume in service["volumes"]}
    assert (settings.milvus_uri is not None) == (name == "replica")
    assert int(service["stop_grace_period"].removesuffix("s")) >= ending_s(settings)


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_built_here(name: str) -> None:
    service = SERVICES[name]
    assert (ROOT / service["build"]["dockerfile"]).exists()
    extras = service["build"].get("args", {}).get("EXTRAS")
    assert service["image"] == f"shrinkface:{VERSION}" + (f"-{extras}" if extras else "")
    assert service["healthcheck"]["test"] == ["CMD", "python3", "/opt/healthcheck.py"]


def test_the_cache_keeps_nothing_and_nobody_outside_reaches_it() -> None:
    redis = SERVICES["redis"]
    command = redis["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"
    assert options["--maxmemory-policy"] == "allkeys-lru"
    assert int(options["--maxmemory"].removesuffix("mb")) < int(redis["mem_limit"].removesuffix("m"))
    assert "volumes" not in redis
    assert redis["networks"] == ["back"]
    assert COMPOSE["networks"]["back"] == {"internal": True}
