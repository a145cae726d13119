from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.cli import main
from exporter.service import DRAIN
from tests.collector.binary import VERSION
from tests.collector.running import OVERLAYS
from tests.container.tools import COLLECTOR_IMAGE, REPOSITORY, program, run

ACCOUNT = {"ASC_KEY_ID": "KEY"}
COMPLETE: dict[str, dict[str, str]] = {
    "": {},
    "prometheus": ACCOUNT,
    "datadog": {**ACCOUNT, "DD_SITE": "datadoghq.eu"},
    "signalfx": {
        **ACCOUNT,
        "SPLUNK_REALM": "us1",
        "SPLUNK_HEC_URL": "https://hec.example.com/services/collector",
    },
}
BACKENDS = pytest.mark.parametrize("backend", COMPLETE, ids=lambda name: name or "nothing set")
PAIR = {"exporter", "collector"}
LOCAL = {"prometheus", "grafana"}
FILES = [REPOSITORY / "docker-compose.yml", *sorted((REPOSITORY / "config" / "compose").glob("*.yaml"))]
PROXIES = set(yaml.safe_load(FILES[0].read_text())["x-proxies"])
READ = {name for path in FILES for name in re.findall(r"(?<!\$)\$\{(\w+)", path.read_text())} | PROXIES
# What the environment of the tests may have, and a newcomer's has not.
UNSET = dict.fromkeys([*READ, "COMPOSE_PROFILES"], "")
BINDS = {"OTLP_BIND", "STATUS_BIND"}  # of the Collector, and nobody's to choose


class Compose:
    """docker-compose.yml, as Docker Compose reads it without a .env."""

    def __init__(self, command: list[str], no_env_file: Path) -> None:
        self._command = [*command, "--env-file", str(no_env_file)]

    def config(self, environment: dict[str, str], *options: str) -> Any:
        """The whole, checked against the schema of Compose and resolved; the reason if that fails."""
        command = [*self._command, *options, "config", "--format=json"]
        done = run(*command, environment={**UNSET, **environment}, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and not done.stderr else done.stderr

    def services(self, backend: str, *options: str, **more: str) -> dict[str, dict[str, Any]]:
        """Its services by name, with all that the backend needs, and more variables."""
        config = self.config({"BACKEND": backend, **COMPLETE[backend], **more}, *options)
        assert isinstance(config, dict), config
        services: dict[str, dict[str, Any]] = config["services"]
        return services


@pytest.fixture
def stack(compose: list[str], tmp_path: Path) -> Compose:
    """docker-compose.yml, with Docker Compose to read it."""
    empty = tmp_path / "env"
    empty.touch()
    return Compose(compose, empty)


@BACKENDS
def test_each_backend_is_valid_and_brings_its_services(stack: Compose, backend: str) -> None:
    """Nothing set shows the local view at once, as does prometheus; elsewhere the profile adds it."""
    shown = LOCAL if backend in ("", "prometheus") else set()
    assert set(stack.services(backend)) == PAIR | shown
    assert set(stack.services(backend, "--profile=local")) == PAIR | LOCAL


@pytest.mark.parametrize(
    ("backend", "variable"),
    [(backend, variable) for backend, complete in COMPLETE.items() for variable in complete],
)
def test_what_is_missing_is_named(stack: Compose, backend: str, variable: str) -> None:
    """A backend without what it needs does not start; the message says what to set, and where."""
    environment = {"BACKEND": backend, **COMPLETE[backend], variable: ""}
    assert f"{variable} is missing a value: Set {variable} in .env" in stack.config(environment)


def test_a_backend_that_does_not_exist_is_refused(stack: Compose) -> None:
    """A misspelt name is not taken for nothing set."""
    assert "config/compose/datadogg.yaml: no such file" in stack.config({"BACKEND": "datadogg"})


@BACKENDS
def test_every_container_is_contained(stack: Compose, backend: str) -> None:
    """No capability, no way to more of them, nothing to write to but volumes, bounded memory, CPU and log."""
    for service in stack.services(backend, "--profile=local").values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert not {"privileged", "cap_add", "devices", "ipc", "pid", "user"} & set(service)


@BACKENDS
def test_each_service_is_limited_and_comes_back(stack: Compose, backend: str) -> None:
    """A crash ends in another start, and no service takes the machine's memory or processes from others."""
    for service in stack.services(backend, "--profile=local").values():
        assert service["restart"] == "unless-stopped"
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


@BACKENDS
def test_each_service_has_time_to_end(stack: Compose, backend: str) -> None:
    """The exporter for what it owes, the Collector for its longest request to the backend."""
    services = stack.services(backend)
    grace = {name: float(services[name]["stop_grace_period"].rstrip("s")) for name in PAIR}
    overlay = yaml.safe_load((OVERLAYS / f"{backend or 'prometheus'}.yaml").read_text())
    timeouts = [float(one.get("timeout", "0s").rstrip("s")) for one in overlay["exporters"].values()]
    assert grace["exporter"] > DRAIN
    assert grace["collector"] > max(timeouts)


@BACKENDS
def test_ports_are_open_to_this_machine_only(stack: Compose, backend: str) -> None:
    """The exporter's status page and, in the local view, Grafana; the Collector is reached by nobody else."""
    services = stack.services(backend, "--profile=local")
    ports = {
        name: [(port["host_ip"], port["published"]) for port in service["ports"]]
        for name, service in services.items()
        if "ports" in service
    }
    assert ports == {"exporter": [("127.0.0.1", "13134")], "grafana": [("127.0.0.1", "3000")]}


@BACKENDS
def test_the_collector_gets_what_its_configuration_reads(stack: Compose, backend: str) -> None:
    """Each variable without a default is set, from a file if it is a secret; each --config is our file."""
    collector = stack.services(backend)["collector"]
    configs = _configs(collector)
    assert [path.name for path in configs] == [
        "otel-collector-config.yaml",
        f"{backend or 'prometheus'}.yaml",
    ]
    read = {name for path in configs for name in re.findall(r"\$\{env:(\w+)\}", path.read_text())}
    environment = collector["environment"]
    assert read <= set(environment)
    secrets = {secret["target"] for secret in collector.get("secrets", [])}
    for name in read:
        is_secret = re.search("KEY|TOKEN", name) is not None
        assert is_secret == (environment[name] in {f"$${{file:{path}}}" for path in secrets})


@pytest.mark.parametrize("backend", ["datadog", "signalfx"])
def test_the_collector_gets_what_replaces_a_default(stack: Compose, backend: str) -> None:
    """What .env sets reaches it; what .env leaves out or empty does not come as an empty address."""
    collector = stack.services(backend)["collector"]
    text = "".join(path.read_text() for path in _configs(collector))
    optional = set(re.findall(r"\$\{env:(\w+):-", text))
    filled = {name for name in optional if f"${{env:{name}:-}}" not in text}
    assert all(collector["environment"].get(name) != "" for name in filled)
    chosen = {name: f"{name.lower()}.example.com" for name in optional - BINDS}
    environment = stack.services(backend, **chosen)["collector"]["environment"]
    assert {name: environment[name] for name in chosen} == chosen


def _configs(collector: dict[str, Any]) -> list[Path]:
    mounted = {volume["target"]: volume["source"] for volume in collector["volumes"]}
    return [_outside(argument.removeprefix("--config="), mounted) for argument in collector["command"]]


def _outside(path: str, mounted: dict[str, str]) -> Path:
    """The file of this repository that a container sees at a path."""
    (source,) = [
        Path(outside, path.removeprefix(inside).lstrip("/"))
        for inside, outside in mounted.items()
        if path == inside or path.startswith(f"{inside}/")
    ]
    assert source.is_file()
    assert source.is_relative_to(REPOSITORY)
    return source


@BACKENDS
def test_the_exporter_understands_its_command(stack: Compose, backend: str) -> None:
    """Its arguments are those of the command line as it is today; only the sandbox needs no account."""
    exporter = stack.services(backend)["exporter"]
    name, *arguments = exporter["command"]
    with main.make_context("perfpower-exporter", [name, *arguments]) as context:
        chosen = main.commands[name].make_context(name, list(arguments), parent=context).params
    assert (name, chosen["sandbox"]) == ("run", not backend)
    assert ("ASC_KEY_ID" in exporter["environment"]) == bool(backend)


@BACKENDS
def test_only_the_exporter_reaches_the_collector(stack: Compose, backend: str) -> None:
    """Data is taken at the Collector's address in a network of the two, past any proxy."""
    services = stack.services(backend, "--profile=local", NO_PROXY="example.com")
    networks = {name: set(service["networks"]) for name, service in services.items()}
    assert {name for name, found in networks.items() if "pair" in found} == PAIR
    (bind,) = services["collector"]["networks"]["pair"]["aliases"]
    assert services["collector"]["environment"]["OTLP_BIND"] == bind
    assert "aliases" not in (services["collector"]["networks"]["local"] or {})
    exporter = services["exporter"]
    assert exporter["environment"]["NO_PROXY"] == f"example.com,{bind}"
    name, *arguments = exporter["command"]
    with main.make_context("perfpower-exporter", [name, *arguments]) as context:
        chosen = main.commands[name].make_context(name, list(arguments), parent=context).params["endpoint"]
    endpoint = exporter["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert {chosen or endpoint, endpoint} == {f"http://{bind}:4318"}


@BACKENDS
def test_the_local_view_has_a_network_of_its_own(stack: Compose, backend: str) -> None:
    """There Prometheus finds the Collector, and the exporter is not."""
    services = stack.services(backend, "--profile=local")
    assert {name for name, service in services.items() if "local" in service["networks"]} == {
        "collector",
        *LOCAL,
    }


@BACKENDS
def test_a_proxy_reaches_both(stack: Compose, backend: str) -> None:
    """The exporter on its way to Apple, the Collector on its way to the backend, and the image's build."""
    proxies = {name: f"http://{name.lower()}.example.com" for name in PROXIES}
    services = stack.services(backend, **proxies)
    given = [services[name]["environment"] for name in PAIR] + [services["exporter"]["build"]["args"]]
    assert [found[name] for name in PROXIES - {"NO_PROXY"} for found in given] == [
        proxies[name] for name in PROXIES - {"NO_PROXY"} for _ in given
    ]
    assert all(found["NO_PROXY"].startswith(proxies["NO_PROXY"]) for found in given)


@BACKENDS
def test_each_start_is_with_the_image_of_these_files(stack: Compose, backend: str) -> None:
    """The exporter's is built: no registry is asked for it, and one of before a git pull is not used."""
    exporter = stack.services(backend)["exporter"]
    assert (exporter["pull_policy"], exporter["build"]["context"]) == ("build", str(REPOSITORY))


@pytest.mark.parametrize("backend", ["datadog", "signalfx"])
def test_the_exporter_gets_its_own_settings_alone(compose: list[str], tmp_path: Path, backend: str) -> None:
    """Of .env what it reads, of exporter.env all: whatever else stands in .env is not to be seen at it."""
    project = tmp_path / "project"
    shutil.copytree(REPOSITORY / "config", project / "config")
    shutil.copy(FILES[0], project)
    others = {"DD_API_KEY": "secret", "SPLUNK_HEC_TOKEN": "secret", "PERFPOWER__LOG__LEVEL": "debug"}
    lines = {**COMPLETE[backend], "BACKEND": backend, "ASC_APPS": "com.example.*", **others}
    (project / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    (project / "exporter.env").write_text("PERFPOWER__SCHEDULE__HEARTBEAT=2m\n")
    config = [f"--file={project / FILES[0].name}", "config", "--format=json"]
    services = json.loads(run(*compose, *config).stdout)["services"]
    environment = services["exporter"]["environment"]
    own = {"ASC_KEY_ID": "KEY", "ASC_APPS": "com.example.*", "PERFPOWER__SCHEDULE__HEARTBEAT": "2m"}
    assert {name: environment.get(name) for name in own} == own
    assert not {*others, "BACKEND", "DD_SITE", "SPLUNK_REALM"} & set(environment)
    assert "secret" not in [*services["collector"]["environment"].values(), *environment.values()]


@BACKENDS
def test_no_secret_stands_in_an_environment(stack: Compose, backend: str) -> None:
    """Whoever may inspect a container sees its variables: a secret comes as a file, and as nothing else."""
    services = stack.services(backend, "--profile=local")
    environments = [service.get("environment") or {} for service in services.values()]
    values = {name: text for environment in environments for name, text in environment.items()}
    secret = {name for name in values if re.search("PRIVATE_KEY|API_KEY|TOKEN", name)}
    assert all("/run/secrets/" in values[name] for name in secret)


@BACKENDS
def test_only_the_exporter_keeps_what_is_owed(stack: Compose, backend: str) -> None:
    """The Collector has nothing to write to: what the backend did not take waits in the exporter's volume."""
    services = stack.services(backend)
    kept = {
        name: [volume["target"] for volume in services[name].get("volumes", ()) if volume["type"] == "volume"]
        for name in PAIR
    }
    assert kept == {"exporter": ["/var/lib/perfpower"], "collector": []}
    assert all(volume["read_only"] for volume in services["collector"]["volumes"])


def test_the_collector_is_of_the_tested_version(stack: Compose) -> None:
    """The version that tests/collector/builder.yaml pins."""
    assert stack.services("")["collector"]["image"] == f"{COLLECTOR_IMAGE.partition('/')[2]}:{VERSION}"


def test_every_variable_is_in_the_template() -> None:
    """.env.example has all that the files read, and nothing that nobody reads."""
    text = (REPOSITORY / ".env.example").read_text()
    assert set(re.findall(r"^#?(\w+)=", text, re.M)) == set(UNSET)


def test_the_template_needs_only_what_it_leaves_empty(compose: list[str]) -> None:
    """Copied and filled in, it makes a complete configuration."""
    template = str(REPOSITORY / ".env.example")
    filled = {"ASC_KEY_ID": "KEY", "DD_SITE": "datadoghq.eu"}
    done = run(*compose, "--env-file", template, "config", "--quiet", environment=filled)
    assert (done.stdout, done.stderr) == ("", "")


def test_prometheus_asks_where_the_collector_answers() -> None:
    """The ports of the scrape configuration are those of the Collector's."""
    scrape = yaml.safe_load((REPOSITORY / "config" / "local" / "prometheus.yml").read_text())
    asked = {job["job_name"]: job["static_configs"][0]["targets"] for job in scrape["scrape_configs"]}
    base = yaml.safe_load((REPOSITORY / "otel-collector-config.yaml").read_text())
    overlay = yaml.safe_load((REPOSITORY / "config" / "collector" / "prometheus.yaml").read_text())
    (reader,) = base["service"]["telemetry"]["metrics"]["readers"]
    page = overlay["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]
    own = reader["pull"]["exporter"]["prometheus"]["port"]
    assert asked == {"appstore": [f"collector:{page}"], "collector": [f"collector:{own}"]}


def test_promtool_takes_the_scrape_configuration() -> None:
    """It is valid for Prometheus itself."""
    promtool = program("promtool", "install the package prometheus")
    run(promtool, "check", "config", str(REPOSITORY / "config" / "local" / "prometheus.yml"))
