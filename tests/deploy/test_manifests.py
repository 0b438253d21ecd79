"""The Kubernetes manifests: what the API server would take, and what it would not notice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.access import KeyFile
from tests.deploy.common import PORT, ROOT, UID, VERSION, ending_s, settings_of
from tests.deploy.kustomization import Object, build, containers, documents, identity, merged
from tests.deploy.metrics import check_expression

K8S = ROOT / "k8s"
OVERLAYS = ("single", "distributed", "gpu")
WORKLOADS = {"StatefulSet", "Deployment"}
# The oldest that has all the fields, and the newest that there are schemas for.
VERSIONS = ("1.27", "1.37")
# Those of custom resources are not among the schemas.
NO_SCHEMA = {"ServiceMonitor"}


@pytest.fixture(scope="module", params=[(name, monitored) for name in OVERLAYS for monitored in (False, True)], ids=str)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    name, monitored = request.param
    found = build(K8S / "overlays" / name)
    return found + build(K8S / "components" / "monitoring") if monitored else found


def one(objects: list[Object], kind: str, name: str = "shrinkface") -> Object:
    (found,) = (each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def workload(objects: list[Object]) -> Object:
    (found,) = (each for each in objects if each["kind"] in WORKLOADS)
    return found


def only_container(objects: list[Object]) -> Object:
    (found,) = containers(workload(objects))
    return found


def pod_labels(objects: list[Object]) -> dict[str, str]:
    return workload(objects)["spec"]["template"]["metadata"]["labels"]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "NotIn"
        if labels.get(rule["key"]) in rule["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_every_file_belongs_to_a_kustomization() -> None:
    used = set()
    for path in K8S.rglob("kustomization.yaml"):
        described = yaml.safe_load(path.read_text())
        names = [*described.get("resources", ()), *(patch["path"] for patch in described.get("patches", ()))]
        used |= {path, *((path.parent / name).resolve() for name in names)}
    files = {path for path in K8S.rglob("*") if path.is_file() and path.parent.name != "examples"}
    assert files - used == set()
    assert all(path.exists() for path in used)


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_follow_the_schemas_of_kubernetes(objects: list[Object], version: str) -> None:
    for found in objects:
        if found["kind"] not in NO_SCHEMA:
            kubernetes_validate.validate(found, version, strict=True)


def test_a_wrong_field_is_noticed(objects: list[Object]) -> None:
    wrong = merged(workload(objects), {"spec": {"template": {"spec": {"serviceAccount_name": "shrinkface"}}}})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_objects_are_told_apart_and_in_one_namespace(objects: list[Object]) -> None:
    assert len({identity(each) for each in objects}) == len(objects)
    namespaces = {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"}
    # A component takes the namespace of the overlay that names it.
    assert namespaces - {None} == {one(objects, "Namespace")["metadata"]["name"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_resolves_an_overlay_to_the_same(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run(
        [kubectl, "kustomize", str(K8S / "overlays" / name)], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    theirs = {identity(each): each for each in yaml.safe_load_all(made.stdout)}
    assert {identity(each): each for each in build(K8S / "overlays" / name)} == theirs


def test_pods_are_confined(objects: list[Object]) -> None:
    pod = workload(objects)["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == UID
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert one(objects, "ServiceAccount", pod["serviceAccountName"])["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("hostPath" not in volume for volume in pod["volumes"])
    own = only_container(objects)["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    labels = one(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_containers_say_what_they_need_and_are_probed(objects: list[Object]) -> None:
    container = only_container(objects)
    resources = container["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]
    for probe, path in {"startup": "ready", "readiness": "ready", "liveness": "live"}.items():
        assert container[f"{probe}Probe"]["httpGet"] == {"path": f"/health/{path}", "port": "http"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    assert all(mount["name"] in volume_names(objects) for mount in container["volumeMounts"])


def volume_names(objects: list[Object]) -> set[str]:
    spec = workload(objects)["spec"]
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
    return claims | {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


def test_a_pod_may_take_as_long_to_end_as_the_service_does(
    objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(one(objects, "ConfigMap")["data"], monkeypatch)
    pod = workload(objects)["spec"]["template"]["spec"]
    # The service itself waits until nobody sends it requests any more; a hook would only come on top.
    assert settings.settle_s >= 5
    assert "lifecycle" not in only_container(objects)
    assert pod["terminationGracePeriodSeconds"] >= ending_s(settings)


def test_images_are_of_this_version(objects: list[Object]) -> None:
    name, _, tag = only_container(objects)["image"].partition(":")
    assert name in {"shrinkface", "shrinkface-gpu"}
    assert tag.removesuffix("-milvus") == VERSION


def test_the_environment_is_one_that_the_service_reads(objects: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    container = only_container(objects)
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        environment |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        key = variable["valueFrom"]["secretKeyRef"]
        environment[variable["name"]] = secrets()[key["name"]]["stringData"][key["key"]]
    settings = settings_of(environment, monkeypatch)
    assert settings.auth_required
    assert (settings.host, settings.port) == ("0.0.0.0", PORT)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(settings.keys_path.parent)] == "api-keys"
    if workload(objects)["kind"] == "Deployment":
        assert settings.milvus_uri is not None
        assert settings.redis_url is not None
        assert container["image"].endswith("-milvus")
    else:
        assert settings.milvus_uri is None
        assert mounts[str(settings.data_dir.parent)] == "galleries"


def secrets() -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in documents(K8S / "examples" / "secrets.yaml")}


def test_secrets_that_are_referred_to_have_an_example(objects: list[Object], tmp_path) -> None:
    pod = workload(objects)["spec"]["template"]["spec"]
    (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
    example = secrets()[volume["secret"]["secretName"]]
    kubernetes_validate.validate(example, VERSIONS[-1], strict=True)
    assert example["metadata"]["namespace"] == one(objects, "Namespace")["metadata"]["name"]
    file = tmp_path / "api-keys.json"
    file.write_text(example["stringData"]["api-keys.json"])
    assert KeyFile(file).list() == ()
    assert not any(each["kind"] == "Secret" for each in objects)


def test_selectors_and_ports_meet_the_pods(objects: list[Object]) -> None:
    labels = pod_labels(objects)
    (port,) = only_container(objects)["ports"]
    assert port == {"name": "http", "containerPort": PORT}
    assert selects(workload(objects)["spec"]["selector"], labels)
    for found in objects:
        spec = found.get("spec", {})
        match found["kind"]:
            case "Service":
                assert spec["selector"].items() <= labels.items()
                assert [each["targetPort"] for each in spec["ports"]] == ["http"]
            case "NetworkPolicy":
                assert selects(spec["podSelector"], labels)
                ports = [each["port"] for rule in spec.get("ingress", ()) for each in rule["ports"]]
                assert set(ports) <= {"http"}
            case "PodDisruptionBudget":
                assert selects(spec["selector"], labels)
            case "ServiceMonitor":
                services = [each for each in objects if each["kind"] == "Service"]
                (chosen,) = (each for each in services if selects(spec["selector"], each["metadata"]["labels"]))
                (endpoint,) = spec["endpoints"]
                assert endpoint["port"] in {each["name"] for each in chosen["spec"]["ports"]}
                assert endpoint["path"] == "/metrics"


def test_the_single_process_owns_its_volume() -> None:
    for name in ("single", "gpu"):
        objects = build(K8S / "overlays" / name)
        spec = one(objects, "StatefulSet")["spec"]
        assert spec["replicas"] == 1
        assert one(objects, "Service", spec["serviceName"])["spec"]["clusterIP"] == "None"
        (claim,) = spec["volumeClaimTemplates"]
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_replicas_grow_spread_and_survive() -> None:
    objects = build(K8S / "overlays" / "distributed")
    spec = one(objects, "Deployment")["spec"]
    assert "replicas" not in spec
    autoscaler = one(objects, "HorizontalPodAutoscaler")["spec"]
    reference = autoscaler["scaleTargetRef"]
    assert (reference["apiVersion"], reference["kind"], reference["name"]) == identity(one(objects, "Deployment"))
    assert autoscaler["minReplicas"] > one(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert all(selects(each["labelSelector"], pod_labels(objects)) for each in spread)


def test_the_latency_that_scales_is_made_of_the_services_metrics() -> None:
    autoscaler = one(build(K8S / "overlays" / "distributed"), "HorizontalPodAutoscaler")
    (wanted,) = (each["pods"]["metric"]["name"] for each in autoscaler["spec"]["metrics"] if each["type"] == "Pods")
    (adapter,) = documents(K8S / "examples" / "prometheus-adapter.yaml")
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["as"] == wanted
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'pod="a"').replace("<<.GroupBy>>", "pod")
    check_expression(query)
    check_expression(rule["seriesQuery"])


def test_a_gpu_is_asked_for_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = build(K8S / "overlays" / "gpu")
    container = only_container(objects)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].startswith("shrinkface-gpu:")
    settings = settings_of(one(objects, "ConfigMap")["data"], monkeypatch)
    assert settings.providers[0] == "CUDAExecutionProvider"
    dockerfile = (ROOT / "docker" / "Dockerfile.gpu").read_text()
    (default,) = re.findall(r"SHRINKFACE_PROVIDERS='(.*)'", dockerfile)
    assert json.loads(default) == settings.providers
