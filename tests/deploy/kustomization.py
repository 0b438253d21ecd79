"""What `kubectl kustomize` makes of a folder, for the few things that the manifests use of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
_UNDERSTOOD = {"apiVersion", "kind", "namespace", "resources", "components", "patches", "images"}
_CLUSTER_WIDE = {"Namespace"}


def build(folder: Path) -> list[Object]:
    """Every object of a kustomization, patched and renamed. Raises ValueError for what is not understood."""
    described = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(described) - _UNDERSTOOD:
        raise ValueError(f"{folder}: {', '.join(sorted(unknown))} is not understood here")
    objects: list[Object] = []
    for name in (*described.get("resources", ()), *described.get("components", ())):
        path = folder / name
        objects += build(path) if path.is_dir() else documents(path)
    for patch in described.get("patches", ()):
        if set(patch) != {"path"}:
            raise ValueError(f"{folder}: a patch is a file here")
        for change in documents(folder / patch["path"]):
            (target,) = (each for each in objects if identity(each) == identity(change))
            objects[objects.index(target)] = merged(target, change)
    for found in objects:
        if "namespace" in described and found["kind"] not in _CLUSTER_WIDE:
            found["metadata"]["namespace"] = described["namespace"]
        for container in containers(found):
            for image in described.get("images", ()):
                if container["image"].partition(":")[0] == image["name"]:
                    container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    return objects


def documents(path: Path) -> list[Object]:
    """The objects of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def identity(found: Object) -> tuple[str, str, str]:
    """What tells an object from the others of a kustomization."""
    return found["apiVersion"], found["kind"], found["metadata"]["name"]


def containers(found: Object) -> list[Object]:
    """Of a workload; none of anything else."""
    pod = found.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def merged(value: Any, change: Any) -> Any:
    """A strategic merge: members of objects, and list entries of one name, are merged; all else is replaced."""
    if isinstance(value, dict) and isinstance(change, dict):
        return {
            key: merged(value[key], change[key]) if key in value and key in change else change.get(key, value.get(key))
            for key in (*value, *(key for key in change if key not in value))
        }
    if isinstance(value, list) and isinstance(change, list) and all("name" in each for each in (*value, *change)):
        by_name = {each["name"]: each for each in change}
        known = {each["name"] for each in value}
        return [
            *(merged(each, by_name.get(each["name"], {})) for each in value),
            *(each for each in change if each["name"] not in known),
        ]
    return change
