"""deploy/kubernetes: valid, agreeing with the program and the Collector's configurations, and contained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from exporter import __version__
from exporter.cli import main
from exporter.service import DRAIN
from exporter.settings import Http, Otlp
from exporter.sharding import Shard, parse
from tests.collector.binary import VERSION
from tests.collector.running import BASE, OVERLAYS
from tests.deploy.manifests import (
    KUBERNETES,
    VARIANTS,
    Rendered,
    longest_request,
    render,
    validate,
    variant,
)

KUBERNETES_VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
KEY_FILE = "/run/secrets/perfpower/AuthKey.p8"
OWN = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: observability
resources: [{kubernetes}/{variant}]
{more}
images:
  - {{name: perfpower-exporter, newName: registry.example.com/perfpower-exporter}}
configMapGenerator:
  - {{name: perfpower-exporter, behavior: replace, files: [exporter.yaml]}}
  - {{name: perfpower-backend, behavior: replace, literals: [{backend}]}}
secretGenerator:
  - {{name: perfpower-keys, behavior: replace, files: [AuthKey_A.p8, AuthKey_B.p8]}}
  - {{name: perfpower-tokens, behavior: replace, files: [dd_api_key, splunk_access_token, splunk_hec_token]}}
"""
DATADOG = "BACKEND=datadog, DD_SITE=datadoghq.eu"
SIGNALFX = "BACKEND=signalfx, SPLUNK_REALM=us1, SPLUNK_HEC_URL=https://hec.example.com/services/collector"
FIVE = """
replicas: [{name: perfpower-exporter, count: 5}]
transformers: [kubernetes/sharded/count]
"""


@pytest.fixture(params=VARIANTS)
def each(request: pytest.FixtureRequest) -> Rendered:
    """Each variant as it stands."""
    return variant(request.param)


def own(folder: Path, name: str, backend: str = DATADOG, more: str = "") -> Rendered:
    """A variant with an operator's own kustomization over it, as docs/deploy.md has it."""
    shutil.copytree(KUBERNETES, folder / "kubernetes")
    (folder / "exporter.yaml").write_text(
        "accounts:\n"
        "  - {name: shop, key_id: A, private_key_file: /run/secrets/perfpower/AuthKey_A.p8}\n"
        "  - {name: games, key_id: B, private_key_file: /run/secrets/perfpower/AuthKey_B.p8}\n"
    )
    for secret in ("AuthKey_A.p8", "AuthKey_B.p8", "dd_api_key", "splunk_access_token", "splunk_hec_token"):
        (folder / secret).write_text(f"made up: {secret}\n")
    text = OWN.format(kubernetes="kubernetes", variant=name, backend=backend, more=more)
    (folder / "kustomization.yaml").write_text(text)
    return render(folder)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_each_object_is_valid(each: Rendered, version: str) -> None:
    """By Kubernetes' own schemas, in which no field is unknown."""
    for found in each.objects:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_pods_keep_to_the_restricted_profile(each: Rendered) -> None:
    """Kubernetes' strictest Pod Security Standard, a read-only root and the images' uid beyond it."""
    security = each.pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (each.exporter, each.collector):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    kinds = {key for volume in each.pod["volumes"] for key in volume} - {"name"}
    assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}


def test_the_pods_get_nothing_of_the_cluster(each: Rendered) -> None:
    """No token of the API server, and no variables of other services."""
    assert each.pod["automountServiceAccountToken"] is False
    assert each.pod["enableServiceLinks"] is False


def test_the_collector_is_a_sidecar(each: Rendered) -> None:
    """It starts before the exporter, ends after it, and keeps no Job from ending."""
    assert each.collector["restartPolicy"] == "Always"
    assert each.collector["startupProbe"]


@pytest.mark.parametrize("name", ["base", "sharded"])
def test_probes_ask_where_something_answers(name: str) -> None:
    """The exporter at the port that is its default, on all addresses; the Collector at its health check's."""
    rendered = variant(name)
    assert probes(rendered.exporter) == {
        "startupProbe": ("/livez", 13134),
        "livenessProbe": ("/livez", 13134),
        "readinessProbe": ("/readyz", 13134),
    }
    assert Http().address == ("127.0.0.1", 13134)
    listening = Http(listen=rendered.environment(rendered.exporter)["PERFPOWER__HTTP__LISTEN"])
    assert listening.address == ("0.0.0.0", 13134)
    health = yaml.safe_load(BASE.read_text())["extensions"]["health_check"]["endpoint"]
    host, _, port = health.rpartition(":")
    assert "STATUS_BIND" in host
    assert rendered.environment(rendered.collector)["STATUS_BIND"] == "0.0.0.0"
    assert set(probes(rendered.collector).values()) == {("/", int(port))}
    (status,) = rendered.one("Service")["spec"]["ports"]
    assert (status["port"], status["targetPort"]) == (13134, "status")


def probes(container: dict[str, Any]) -> dict[str, tuple[str, int]]:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    return {
        key: (probe["httpGet"]["path"], ports[probe["httpGet"]["port"]])
        for key, probe in container.items()
        if key.endswith("Probe")
    }


def test_the_exporter_finds_the_collector(each: Rendered) -> None:
    """On the pod's loopback, where the Collector's configuration listens and nobody else reaches it."""
    endpoint = each.environment(each.exporter)["OTEL_EXPORTER_OTLP_ENDPOINT"]
    http = yaml.safe_load(BASE.read_text())["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert http == "${env:OTLP_BIND:-127.0.0.1}:4318"
    assert endpoint == "http://127.0.0.1:4318"
    assert Otlp(endpoint=endpoint).metrics_url == f"{endpoint}/v1/metrics"
    assert each.environment(each.collector)["OTLP_BIND"] == "127.0.0.1"


def test_no_setting_of_the_operators_opens_the_collector(tmp_path: Path) -> None:
    """An address that is set but empty would be every address; the pod's own win over perfpower-backend."""
    rendered = own(tmp_path, "base", f"{DATADOG}, OTLP_BIND=, STATUS_BIND=")
    environ = rendered.environment(rendered.collector)
    assert (environ["DD_SITE"], environ["OTLP_BIND"]) == ("datadoghq.eu", "127.0.0.1")
    assert environ["STATUS_BIND"] == "0.0.0.0"


def test_secrets_are_files_and_each_container_has_its_own(each: Rendered) -> None:
    """No variable holds one; the exporter sees no token of the backend, the Collector no key."""
    names = {name.rpartition("/")[2] for name, _ in each.files(each.exporter) if "secrets" in name}
    assert names == {"AuthKey.p8"}
    tokens = {name for name, _ in each.files(each.collector) if "secrets" in name}
    environ = each.environment(each.collector)
    assert {environ[name] for name in environ if name.endswith(("_KEY", "_TOKEN"))} == {
        f"${{file:{path}}}" for path in tokens
    }
    for container in (each.exporter, each.collector):
        sources = [variable.get("valueFrom", {}) for variable in container["env"]]
        assert not any("secretKeyRef" in source for source in sources)
        assert not any("secretRef" in source for source in container.get("envFrom", ()))
    for volume in each.pod["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440


def test_versions_agree(each: Rendered) -> None:
    """The exporter's is the package's, the Collector's the one that is tested."""
    assert each.exporter["image"] == f"perfpower-exporter:{__version__}"
    assert each.collector["image"] == f"otel/opentelemetry-collector-contrib:{VERSION}"
    assert each.template["metadata"]["labels"] == {
        "app.kubernetes.io/name": "perfpower-exporter",
        "app.kubernetes.io/version": __version__,
    }
    for found in each.objects:
        assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "perfpower-exporter"
        assert found["metadata"]["labels"]["app.kubernetes.io/version"] == __version__


@pytest.mark.parametrize("name", ["base", "sharded"])
def test_nothing_that_cannot_be_changed_bears_a_version(name: str) -> None:
    """Kubernetes refuses another selector or volume claim, so an upgrade must not bring one."""
    spec = variant(name).one("StatefulSet")["spec"]
    constant = {"app.kubernetes.io/name": "perfpower-exporter"}
    assert spec["selector"]["matchLabels"] == constant
    assert [claim["metadata"].get("labels") for claim in spec["volumeClaimTemplates"]] == [constant]


def test_the_collector_has_the_configurations_of_the_repository(each: Rendered) -> None:
    """All of them, byte for byte; `make docs` copies what was changed."""
    files = {Path(name).name: content for name, content in each.files(each.collector) if "otelcol" in name}
    assert files == {path.name: path.read_bytes() for path in (BASE, *OVERLAYS.glob("*.yaml"))}


def test_what_has_to_stay_is_on_volumes(each: Rendered) -> None:
    """The exporter's state, where it writes; the Collector writes nowhere."""
    mounts = {mount["name"]: mount["mountPath"] for mount in each.exporter["volumeMounts"]}
    assert each.environment(each.exporter)["PERFPOWER_STATE"] == f"{mounts['state']}/state.db"
    assert all(mount["readOnly"] for mount in each.collector["volumeMounts"])
    claims = {
        claim["metadata"]["name"]
        for owner in each.of("StatefulSet")
        for claim in owner["spec"]["volumeClaimTemplates"]
    }
    named = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in each.pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims | set(named) == {"state"}
    assert set(named.values()) == {found["metadata"]["name"] for found in each.of("PersistentVolumeClaim")}


def test_the_pods_have_time_to_end(each: Rendered) -> None:
    """The exporter's eight seconds, and then the Collector's longest request."""
    assert each.pod["terminationGracePeriodSeconds"] > DRAIN + longest_request()


def test_nobody_gets_in_and_only_what_is_needed_gets_out(each: Rendered) -> None:
    """DNS and HTTPS; the policy is for these pods."""
    spec = each.one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    ports = [(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]]
    assert ports == [("UDP", 53), ("TCP", 53), ("TCP", 443)]
    assert spec["podSelector"]["matchLabels"].items() <= each.template["metadata"]["labels"].items()


def test_the_pods_of_a_sharded_set_know_their_shard(tmp_path: Path) -> None:
    """Also where an operator's own kustomization says how many there are."""
    for rendered, count in ((variant("sharded"), 2), (own(tmp_path, "sharded", more=FIVE), 5)):
        assert rendered.one("StatefulSet")["spec"]["replicas"] == count
        shards = [
            parse(rendered.environment(rendered.exporter, index)["PERFPOWER_SHARD"], "")
            for index in range(count)
        ]
        assert shards == [Shard(index, count) for index in range(count)]


def test_shards_do_not_wait_for_each_other() -> None:
    """One whose key is refused is never ready; the others have to start, and to be updated."""
    spec = variant("sharded").one("StatefulSet")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "100%"}


def test_a_cron_job_polls_once_and_never_beside_itself() -> None:
    """There is one state file; a pod that does not get ready must not hold up all that follow."""
    rendered = variant("cronjob")
    spec = rendered.one("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert 0 < spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 6 * 3600
    assert rendered.pod["restartPolicy"] == "Never"
    assert rendered.exporter["args"] == ["once"]
    assert not {key for key in rendered.exporter if key.endswith("Probe")}
    assert not rendered.of("StatefulSet")
    assert not rendered.of("Service")


@pytest.mark.parametrize("name", VARIANTS)
def test_an_operators_kustomization_reaches_the_pods(tmp_path: Path, name: str) -> None:
    """Its files, image and namespace are what the pods have, and nothing of the placeholders."""
    rendered = own(tmp_path, name)
    keys = {path for path, _ in rendered.files(rendered.exporter) if "secrets" in path}
    assert keys == {f"/run/secrets/perfpower/AuthKey_{letter}.p8" for letter in "AB"}
    files = dict(rendered.files(rendered.exporter))
    assert b"games" in files[rendered.environment(rendered.exporter)["PERFPOWER_CONFIG"]]
    assert rendered.exporter["image"] == f"registry.example.com/perfpower-exporter:{__version__}"
    assert {found["metadata"]["namespace"] for found in rendered.objects} == {"observability"}
    for found in rendered.objects:
        kubernetes_validate.validate(found, KUBERNETES_VERSIONS[0], strict=True)


@pytest.mark.parametrize(
    ("filled_in", "says"),
    [("", "accounts[0].key_id is missing"), ("A", "account main: the private key is empty")],
)
def test_an_exporter_that_was_not_filled_in_says_so(tmp_path: Path, filled_in: str, says: str) -> None:
    """The placeholders are no values that would look like some: the start ends with status 2."""
    rendered = variant("base")
    files = dict(rendered.files(rendered.exporter))
    config = files["/etc/perfpower/exporter.yaml"].decode().replace("key_id:", f"key_id: {filled_in}")
    (tmp_path / "AuthKey.p8").write_bytes(files[KEY_FILE])
    (tmp_path / "exporter.yaml").write_text(config.replace(KEY_FILE, str(tmp_path / "AuthKey.p8")))
    state = {"PERFPOWER_STATE": str(tmp_path / "state.db")}
    result = CliRunner(env=state).invoke(main, ["once", "--config", str(tmp_path / "exporter.yaml")])
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize("backend", [DATADOG, SIGNALFX])
@pytest.mark.parametrize("name", ["base", "cronjob"])
def test_a_collector_that_was_filled_in_is_valid(
    otelcol: Path, tmp_path: Path, name: str, backend: str
) -> None:
    """With the arguments, the variables and the files that the pod gives it."""
    good, said = validate(otelcol, own(tmp_path, name, backend), tmp_path)
    assert good, said


def test_a_collector_without_a_backend_says_so(otelcol: Path, tmp_path: Path) -> None:
    """The name of the file that is not there is the instruction."""
    good, said = validate(otelcol, variant("base"), tmp_path)
    assert not good
    assert "set-BACKEND-to-datadog-or-signalfx" in said


@pytest.mark.parametrize(
    ("backend", "empty"),
    [(DATADOG, "dd_api_key"), (SIGNALFX, "splunk_access_token"), (SIGNALFX, "splunk_hec_token")],
)
def test_a_collector_without_a_token_says_which(
    otelcol: Path, tmp_path: Path, backend: str, empty: str
) -> None:
    """The placeholder of a secret is empty, which the Collector refuses by name."""
    rendered = own(tmp_path, "base", backend)
    secrets = tmp_path / "placeholder"
    secrets.mkdir()
    for found in rendered.of("Secret"):
        if empty in found["data"]:
            found["data"][empty] = ""
    good, said = validate(otelcol, rendered, secrets)
    assert not good
    assert empty.upper() in said
