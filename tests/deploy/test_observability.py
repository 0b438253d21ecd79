"""Prometheus and Grafana as the compose file runs them."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from service.api.app import create_app
from service.settings import Settings
from tests.deploy.common import PORT, ROOT
from tests.deploy.metrics import check_expression, exported

GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "shrinkface.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [expression.replace("$__rate_interval", "1m") for expression in asked]


def test_the_dashboard_shows_every_metric_of_the_service_and_no_other() -> None:
    shown = set().union(*(check_expression(expression) for expression in expressions()))
    ours = {name for name in exported() if name.startswith("shrinkface_")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours} <= families


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(shrinkface_request_total[1m])",
        'shrinkface_gallery_faces{galery="a"}',
        "sum by (rute) (shrinkface_faces_total)",
    ],
)
def test_a_misspelt_expression_is_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_expression(wrong)


def test_panels_are_whole_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["title"]
        assert all(target["datasource"]["uid"] == "prometheus" for target in panel["targets"])


def test_routes_that_panels_ask_for_exist() -> None:
    routes = set(create_app(Settings(_env_file=None)).openapi()["paths"])
    asked = set(re.findall(r'route="([^"]*)"', "".join(expressions())))
    assert asked
    assert asked <= routes


def test_the_data_source_is_provisioned_and_the_dashboard_found() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = sources["datasources"]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")
    providers = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "shrinkface.yml").read_text())
    (provider,) = providers["providers"]
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    assert (ROOT / mounts[provider["options"]["path"]]).resolve() == GRAFANA / "dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/shrinkface.json"


def test_prometheus_asks_the_services_of_the_compose_file() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    jobs = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    (job,) = (job for job in jobs if job["job_name"] == "shrinkface")
    (lookup,) = job["dns_sd_configs"]
    assert lookup["port"] == PORT
    built = {name for name, service in compose["services"].items() if "build" in service}
    assert set(lookup["names"]) == built
    shared = set(compose["services"]["prometheus"]["networks"])
    assert all(shared & set(compose["services"][name]["networks"]) for name in built)
