"""What `kubectl kustomize` makes of a folder, and what the kubelet would make of that."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.collector.running import OVERLAYS
from tests.collector.running import run as run_collector
from tests.container.tools import REPOSITORY, program, run

KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
VARIANTS = ("base", "sharded", "cronjob")


@dataclass(frozen=True)
class Rendered:
    """The objects that a folder describes."""

    objects: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.of(kind)
        return found

    @property
    def template(self) -> dict[str, Any]:
        """That of the pods."""
        jobs = self.of("CronJob")
        owner = jobs[0]["spec"]["jobTemplate"] if jobs else self.one("StatefulSet")
        found: dict[str, Any] = owner["spec"]["template"]
        return found

    @property
    def pod(self) -> dict[str, Any]:
        """The specification of the pods."""
        found: dict[str, Any] = self.template["spec"]
        return found

    @property
    def exporter(self) -> dict[str, Any]:
        (found,) = self.pod["containers"]
        return dict(found)

    @property
    def collector(self) -> dict[str, Any]:
        (found,) = self.pod["initContainers"]
        return dict(found)

    def files(self, container: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Path → content of what ConfigMaps and Secrets put into a container."""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes.get(mount["name"], {})
            name = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
            if name:
                assert mount["readOnly"]
                for file, content in self._data(name).items():
                    yield f"{mount['mountPath']}/{file}", content

    def environment(self, container: dict[str, Any], index: int = 0) -> dict[str, str]:
        """What the kubelet sets for the container in the pod of this index."""
        environ: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            environ |= {
                name: text.decode() for name, text in self._data(source["configMapRef"]["name"]).items()
            }
        for variable in container["env"]:
            if "value" in variable:
                environ[variable["name"]] = expanded(variable["value"], environ)
            else:
                assert variable["valueFrom"] == {
                    "fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
                }
                environ[variable["name"]] = str(index)
        return environ

    def _data(self, name: str) -> dict[str, bytes]:
        (found,) = (
            one
            for one in self.objects
            if one["kind"] in ("ConfigMap", "Secret") and one["metadata"]["name"] == name
        )
        if found["kind"] == "ConfigMap":
            return {key: text.encode() for key, text in found["data"].items()}
        return {key: base64.b64decode(text) for key, text in found["data"].items()}


def expanded(text: str, environ: dict[str, str]) -> str:
    """`$(NAME)` replaced as the kubelet does: only by what was set before it."""
    return re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda match: environ.get(match[1], match[0]), text)


def render(folder: Path) -> Rendered:
    """What is in the folder, as `kubectl apply -k` would send it.

    Skips, or fails in CI, without kubectl.
    """
    kubectl = program("kubectl", "install kubectl, which has kustomize built in")
    return Rendered(tuple(yaml.safe_load_all(run(kubectl, "kustomize", str(folder)).stdout)))


def longest_request() -> float:
    """How many seconds the Collector gives a backend to answer, by the overlays."""
    configured = [yaml.safe_load(path.read_text())["exporters"].values() for path in OVERLAYS.glob("*.yaml")]
    timeouts = [one["timeout"] for exporters in configured for one in exporters if "timeout" in one]
    return max(float(timeout.removesuffix("s")) for timeout in timeouts)


@cache
def variant(name: str) -> Rendered:
    """One of VARIANTS as it stands."""
    return render(KUBERNETES / name)


def validate(otelcol: Path, rendered: Rendered, folder: Path) -> tuple[bool, str]:
    """Whether the Collector takes the configuration as the pod has it, and what it says."""
    for name, content in rendered.files(rendered.collector):
        (folder / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / name.lstrip("/")).write_bytes(content)
    environ = rendered.environment(rendered.collector)
    args = [expanded(arg, environ).removeprefix("--config=") for arg in rendered.collector["args"]]
    moved = {name: text.replace("/run/secrets", f"{folder}/run/secrets") for name, text in environ.items()}
    done = run_collector(
        otelcol, ["validate"], [folder / arg.lstrip("/") for arg in args], {**moved, "HOME": os.devnull}
    )
    return done.returncode == 0, done.stdout + done.stderr
