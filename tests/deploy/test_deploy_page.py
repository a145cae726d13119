"""docs/deploy.md: each of its blocks is done, as far as that goes without a cluster and without systemd."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from exporter.appstore.auth import load_private_key
from exporter.cli import main
from exporter.health import HealthServer
from exporter.sandbox import AppStoreSandbox, Sandbox
from exporter.service import cron_trigger
from exporter.settings import Http, Schedule, Settings, load
from exporter.sharding import Shard, parse
from exporter.state import State
from exporter.status import Status
from tests.collector.running import BASE, OVERLAYS
from tests.collector.running import run as run_collector
from tests.container.tools import REPOSITORY, find_compose, program
from tests.deploy.manifests import Rendered, render, validate
from tests.deploy.units import COLLECTOR, EXPORTER, environment, unit

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```[a-z]+\n(.*?)^```$", PAGE, re.M | re.S)
CLAIMED: list[str] = []
LESS = {"PERFPOWER__COLLECT__CATEGORIES": "[LAUNCH]", "PERFPOWER__DIAGNOSTICS__VERSIONS": "0"}


def block(opening: str) -> pytest.MarkDecorator:
    """Hands the block that begins so to a test, as `text`, and notes that it has one."""
    CLAIMED.append(opening)
    return pytest.mark.parametrize("text", [one(opening)], ids=[opening])


def one(opening: str) -> str:
    """The one block that begins so."""
    (found,) = (text for text in BLOCKS if text.startswith(opening))
    return str(found)


def commands(text: str) -> list[str]:
    """The lines of a block for a shell, without comments."""
    return [line for line in re.sub(r"\s+#.*$", "", text, flags=re.M).splitlines() if line]


def variables(text: str) -> dict[str, str]:
    """A file of NAME=value lines, as a shell and systemd read it."""
    lines = (line.partition("=") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def shell(
    line: str, folder: Path, tools: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a line in this folder; programs in `tools` take the place of others."""
    path = os.pathsep.join([*([str(tools)] if tools else []), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def stand_ins(folder: Path, **scripts: str) -> Path:
    """A folder of programs for `shell`."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def status_of(url: str, folder: Path) -> int:
    """What the exporter's listener answers at the path of this address, which has to be where it listens."""
    found = re.fullmatch(r"http://([\d.]+):(\d+)(/\w*)", url)
    assert found
    assert (found[1], int(found[2])) == Http().address
    account = {"ASC_KEY_ID": "KEY", "ASC_PRIVATE_KEY": "made up"}
    with closing(State(folder / "state.db")) as state:
        server = HealthServer(("127.0.0.1", 0), Status(load(None, account), state, lambda: 0.0))
        with closing(server):
            return httpx.get(server.url + found[3], trust_env=False).status_code


def settings_with_a_key(environ: dict[str, str], config: Path | None = None) -> Settings:
    """The settings, and that the key that they name can be used."""
    settings = load(config, environ)
    for account in settings.accounts:
        load_private_key(account.private_key_text())
    return settings


@pytest.fixture(scope="session")
def key() -> str:
    """A private key as App Store Connect gives it, of nobody."""
    return AppStoreSandbox().private_key_pem


def test_each_block_has_its_test() -> None:
    """A new block needs one; none is overlooked because it is written in another way."""
    assert len(BLOCKS) * 2 == len(re.findall(r"^\s*(?:```|~~~)", PAGE, re.M))
    claims = [[opening for opening in CLAIMED if text.startswith(opening)] for text in BLOCKS]
    assert [found for found in claims if len(found) != 1] == []
    assert sorted(opening for (opening,) in claims) == sorted(CLAIMED)


# Docker Compose


def services(project: Path, line: str, tools: Path, **environ: str) -> dict[str, Any]:
    done = shell(line, project, tools, **environ)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def published(found: dict[str, Any]) -> set[str]:
    """Addresses of the ports that a machine with these services listens on."""
    ports = (port for service in found.values() for port in service.get("ports", ()))
    return {f"http://{port.get('host_ip', '0.0.0.0')}:{port['published']}" for port in ports}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What Compose reads of a clone of the repository."""
    folder = tmp_path / "project"
    shutil.copytree(REPOSITORY / "config", folder / "config")
    for name in ("docker-compose.yml", ".env.example", BASE.name):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@block("docker compose up ")
def test_compose_comes_up_as_the_page_says(text: str, project: Path, tmp_path: Path) -> None:
    """Told to show what `up` would start: the page's ports and no others; a sentence for what is missing."""
    compose = shlex.join(find_compose())
    what = f'[ "$1 $2" = "compose up" ] && exec {compose} config --format json'
    tools = stand_ins(tmp_path / "tools", docker=what)
    first, copy, second, look = commands(text)
    grafana, status = re.findall(r"http://127\.0\.0\.1:\d+", text)
    assert published(services(project, first, tools)) == {grafana, status}
    assert shell(copy, project).returncode == 0
    refused = shell(second, project, tools)
    assert refused.returncode != 0
    assert re.search(r"Set (ASC_KEY_ID|DD_SITE) in \.env", refused.stderr)
    filled_in = re.sub(r"^(ASC_KEY_ID|DD_SITE)=$", r"\1=made-up", (project / ".env").read_text(), flags=re.M)
    (project / ".env").write_text(filled_in)
    assert published(services(project, second, tools)) == {status}
    assert status_of(look.removeprefix("curl "), tmp_path) == 200


def test_compose_gives_the_collector_no_empty_address(project: Path) -> None:
    """An empty OTLP_BIND or STATUS_BIND would be every address; what a shell or .env says does not get in."""
    (project / ".env").write_text("OTLP_BIND=\nSTATUS_BIND=\n")
    line = f"{shlex.join(find_compose())} config --format json"
    collector = shell(line, project, OTLP_BIND="", STATUS_BIND="")
    environ = json.loads(collector.stdout)["services"]["collector"]["environment"]
    assert all(environ[name] for name in ("OTLP_BIND", "STATUS_BIND"))


# Kubernetes


@pytest.fixture
def own(tmp_path: Path, key: str) -> Path:
    """The page's kustomization and configuration, with made-up secrets, beside a copy of the manifests."""
    folder = tmp_path / "own"
    shutil.copytree(REPOSITORY / "deploy", folder / "perfpower-exporter" / "deploy")
    (folder / "kustomization.yaml").write_text(one("# kustomization.yaml"))
    (folder / "exporter.yaml").write_text(one("# exporter.yaml"))
    for generator in yaml.safe_load(one("# kustomization.yaml"))["secretGenerator"]:
        for name in generator["files"]:
            (folder / name).write_text(key if name.endswith(".p8") else "made up\n")
    return folder


def with_more(folder: Path, fragment: str) -> Rendered:
    """The page's kustomization with the keys of a fragment in the place of its own."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text()) | yaml.safe_load(fragment)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


@block("docker build ")
def test_the_image_that_is_pushed_is_the_one_that_is_pulled(text: str, own: Path) -> None:
    """The pods name the image of the page, and their namespace is the one it makes."""
    build, push, namespace = (shlex.split(line) for line in commands(text))
    assert build == ["docker", "build", "-t", push[-1], "."]
    assert render(own).exporter["image"] == push[-1]
    assert namespace[-1] == yaml.safe_load(one("# kustomization.yaml"))["namespace"]


@block("# kustomization.yaml")
def test_the_kustomization_makes_valid_objects(text: str, own: Path, otelcol: Path, tmp_path: Path) -> None:
    """In its namespace and with its image, and the Collector takes what it gets of it."""
    kustomization = yaml.safe_load(text)
    rendered = render(own)
    for found in rendered.objects:
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)
        assert found["metadata"]["namespace"] == kustomization["namespace"]
    assert rendered.exporter["image"].startswith(kustomization["images"][0]["newName"])
    good, said = validate(otelcol, rendered, tmp_path)
    assert good, said


@block("# exporter.yaml")
def test_the_configuration_finds_its_key_in_the_pod(text: str, own: Path, key: str, tmp_path: Path) -> None:
    """It is the file that the pod's variable names, and the key that it names is among the pod's files."""
    rendered = render(own)
    files = dict(rendered.files(rendered.exporter))
    environ = rendered.environment(rendered.exporter)
    assert files[environ["PERFPOWER_CONFIG"]].decode() == text
    (account,) = yaml.safe_load(text)["accounts"]
    assert files[account["private_key_file"]].decode() == key
    config = tmp_path / "exporter.yaml"
    config.write_text(text.replace("/run/secrets/perfpower", str(own)))
    (found,) = settings_with_a_key(environ, config).accounts
    assert (found.key_id, found.issuer_id) == (account["key_id"], account["issuer_id"])


@pytest.fixture
def no_cluster(tmp_path: Path) -> str:
    """A KUBECONFIG whose cluster refuses every connection: kubectl gets there with valid arguments only."""
    cluster = {"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    user = {"name": "none", "user": {}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "clusters": [cluster],
        "contexts": [context],
        "users": [user],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def assert_kubectl_takes(line: str, folder: Path, config: str) -> None:
    done = shell(line.removesuffix(" &"), folder, KUBECONFIG=config)
    assert re.search(r"127\.0\.0\.1:1\b.* refused", done.stderr), f"{line}: {done.stderr}"


def assert_named(line: str, rendered: Rendered) -> None:
    """What a line for kubectl names is among the objects."""
    (owner,) = rendered.of("StatefulSet")
    name = owner["metadata"]["name"]
    namespace = re.search(r" -n (\S+)", line)
    assert namespace
    assert namespace[1] == owner["metadata"]["namespace"]
    assert re.search(rf" (statefulset/{name}|{name}-0)( |$)", line)
    for container in re.findall(r" -c (\S+)", line):
        assert container == rendered.exporter["name"]
    for port in re.findall(rf" port-forward {name}-0 (\d+)", line):
        assert int(port) in [found["containerPort"] for found in rendered.exporter["ports"]]


@block("kubectl kustomize ")
def test_kubectl_takes_the_lines_that_apply_it(text: str, own: Path, no_cluster: str) -> None:
    """The first one shows the objects; the others get as far as the connection to a cluster."""
    look, apply, rollout = commands(text)
    program("kubectl", "install kubectl, which has kustomize built in")
    shown = shell(look.replace("| less", "| cat"), own)
    assert len(list(yaml.safe_load_all(shown.stdout))) == len(render(own).objects)
    for line in (apply, rollout):
        assert_kubectl_takes(line, own, no_cluster)
    assert_named(rollout, render(own))


@block("kubectl -n observability port-forward ")
def test_kubectl_takes_the_lines_that_look(text: str, own: Path, no_cluster: str, tmp_path: Path) -> None:
    """Pod, container and port are the manifests'; the address and the command are the exporter's."""
    program("kubectl", "install kubectl, which has kustomize built in")
    forward, look, check = commands(text)
    for line in (forward, check):
        assert_kubectl_takes(line, own, no_cluster)
        assert_named(line, render(own))
    assert status_of(look.removeprefix("curl "), tmp_path) == 200
    name, command = check.partition(" -- ")[2].split()
    assert (name, command in main.commands) == ("perfpower-exporter", True)


@block("resources: [perfpower-exporter/deploy/kubernetes/sharded]")
def test_the_lines_for_shards_make_as_many(text: str, own: Path) -> None:
    """Each pod knows its number, and how many there are."""
    rendered = with_more(own, text)
    count = yaml.safe_load(text)["replicas"][0]["count"]
    assert count > 1
    assert rendered.one("StatefulSet")["spec"]["replicas"] == count
    environments = [rendered.environment(rendered.exporter, index) for index in range(count)]
    shards = [parse(environ["PERFPOWER_SHARD"], "") for environ in environments]
    assert shards == [Shard(index, count) for index in range(count)]


@block("patches:\n  - target: {kind: CronJob}")
def test_the_patch_moves_the_cron_job(text: str, own: Path) -> None:
    """To the times of the page, which are some."""
    rendered = with_more(own, "resources: [perfpower-exporter/deploy/kubernetes/cronjob]\n" + text)
    schedule = rendered.one("CronJob")["spec"]["schedule"]
    assert f"value: {schedule}}}" in text
    assert cron_trigger(Schedule(poll=schedule))


# systemd


class Machine:
    """A root folder on which the page's steps were done, by somebody who has a clone and two secrets."""

    def __init__(self, folder: Path, key: str) -> None:
        self.root = folder / "root"
        (self.root / "etc" / "systemd" / "system").mkdir(parents=True)
        clone = folder / "clone"
        clone.mkdir()
        for name in ("config", "deploy", "requirements.lock", "pyproject.toml", BASE.name):
            (clone / name).symlink_to(REPOSITORY / name)
        (clone / "AuthKey_2X9R4HXF34.p8").write_text(key)
        (clone / "dd_api_key").write_text("made up\n")
        self._told = folder / "told"
        note = f'echo "$(basename "$0") $*" >> {self._told}'
        pip = f'mkdir -p "$3/bin" && cp {folder}/tools/systemctl "$3/bin/pip" && {note}'
        tools = stand_ins(folder / "tools", sudo='exec "$@"', systemctl=note, python3=pip)
        steps = re.sub(r" (?=/(?:etc|opt)/)", f" {self.root}", one("sudo python3 -m venv"))
        done = shell(steps, clone, tools)
        assert done.returncode == 0, done.stderr

    @property
    def told(self) -> list[str]:
        """What the programs were told that do nothing here."""
        return self._told.read_text().replace(str(self.root), "").splitlines()

    @property
    def units(self) -> set[str]:
        """The files of the units that were installed."""
        return {path.name for path in self.there("/etc/systemd/system").iterdir()}

    def there(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def environment(self, name: str, credentials: Path) -> dict[str, str]:
        """The variables that a unit has, its credentials made as systemd does."""
        folder, _, source = unit(name)["LoadCredential"][0].partition(":")
        credentials.mkdir()
        for file in self.there(source).iterdir():
            (credentials / f"{folder}_{file.name}").write_bytes(file.read_bytes())
        written = variables(self.there(unit(name)["EnvironmentFile"][0]).read_text())
        return {**environment(name, credentials), **written}


@pytest.fixture
def machine(tmp_path: Path, key: str) -> Machine:
    return Machine(tmp_path, key)


@block("sudo python3 -m venv")
def test_the_steps_make_a_machine_on_which_both_units_start(
    text: str, machine: Machine, otelcol: Path, tmp_path: Path
) -> None:
    """Each unit finds its files and variables, with which exporter and Collector are content."""
    settings = settings_with_a_key(machine.environment(EXPORTER, tmp_path / "keys"))
    assert settings.accounts[0].key_id in text
    arguments = unit(COLLECTOR)["ExecStart"][0].replace("%i", "datadog").split()[1:]
    configs = [machine.there(argument.removeprefix("--config=")) for argument in arguments]
    assert [path.read_text() for path in configs] == [
        path.read_text() for path in (BASE, OVERLAYS / "datadog.yaml")
    ]
    environ = machine.environment(COLLECTOR, tmp_path / "tokens")
    done = run_collector(otelcol, ["validate"], configs, environ)
    assert done.returncode == 0, done.stderr
    for folder in ("keys", "tokens"):
        path = machine.there(f"/etc/perfpower/{folder}")
        assert {found.stat().st_mode & 0o077 for found in (path, *path.iterdir())} == {0}


def test_the_steps_tell_programs_what_they_know(machine: Machine) -> None:
    """pip has these options and files; what is enabled was installed, and runs what was installed."""
    help_of_pip = [sys.executable, "-m", "pip", "install", "--help"]
    known = subprocess.run(help_of_pip, capture_output=True, text=True, check=True).stdout
    for line in filter(re.compile("pip install ").match, machine.told):
        for word in line.split()[2:]:
            options = re.findall(rf"\s{word}\b", known) if word.startswith("-") else ()
            assert options or (REPOSITORY / word).exists(), f"{line}: {word}"
    enabled = re.findall(r"^systemctl enable --now (\S+)$", "\n".join(machine.told), re.M)
    assert {template(name) for name in enabled} == machine.units
    venv = re.findall(r"^python3 -m venv (\S+)$", "\n".join(machine.told), re.M)
    assert unit(EXPORTER)["ExecStart"] == [f"{venv[0]}/bin/perfpower-exporter run"]


@block("systemctl status")
def test_the_lines_that_look_name_what_is_there(text: str, machine: Machine, tmp_path: Path) -> None:
    """Units that were installed, and an address that answers."""
    status, journal, look = commands(text)
    seen = re.findall(r"(?:status|-u) (\S+)", f"{status}\n{journal}")
    assert len(seen) == 2
    assert {template(name) for name in seen} <= machine.units
    program("journalctl", "install systemd")
    journalctl = shell(f"{journal} --no-pager", tmp_path)
    assert journalctl.returncode == 0, journalctl.stderr
    assert status_of(look.removeprefix("curl "), tmp_path) in (200, 503)


def template(name: str) -> str:
    """The file of a unit: perfpower-collector@datadog → perfpower-collector@.service."""
    return re.sub("@.*", "@", name) + ".service"


# cron


@block("# /etc/cron.d/")
def test_the_crontab_polls_and_delivers(text: str, tmp_path: Path) -> None:
    """Its times are some, its name is one that cron reads, and its command does what it says."""
    name, line = re.fullmatch(r"# /etc/cron\.d/(\S+)\n(.*)\n", text).groups()  # type: ignore[union-attr]
    assert re.fullmatch("[A-Za-z0-9_-]+", name)
    *times, user, command = line.split(maxsplit=6)
    assert cron_trigger(Schedule(poll=" ".join(times)))
    assert (user, "%" in command) == ("perfpower", False)  # cron makes a line end of %
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as sandbox:
        cron_env(tmp_path, sandbox)
        done = shell(moved(command, tmp_path), tmp_path)
        assert done.returncode == 0, done.stderr
        assert sandbox.receiver.distinct_histograms()


@block("# /etc/perfpower/cron.env")
def test_the_variables_for_cron_are_settings(text: str, key: str, tmp_path: Path) -> None:
    """With the key where they say it is."""
    environ = variables(moved(text, tmp_path))
    Path(environ["ASC_PRIVATE_KEY_FILE"]).parent.mkdir(parents=True)
    Path(environ["ASC_PRIVATE_KEY_FILE"]).write_text(key)
    settings = settings_with_a_key(environ)
    assert settings.accounts[0].key_id == environ["ASC_KEY_ID"]
    assert settings.state.path == Path(environ["PERFPOWER_STATE"])


def moved(text: str, root: Path) -> str:
    """A text whose paths are those of a folder, and the program the one that is tested."""
    here = text.replace("/opt/perfpower/bin", str(Path(sys.executable).parent))
    return re.sub(r"(?<=[ =])/(etc|var)/", rf"{root}/\1/", here)


def cron_env(root: Path, sandbox: Sandbox) -> None:
    """The page's file, in which everything that is about an account is the sandbox's."""
    given = variables(moved(one("# /etc/perfpower/cron.env"), root))
    key = Path(given["ASC_PRIVATE_KEY_FILE"])
    key.parent.mkdir(parents=True)
    key.write_text(sandbox.appstore.private_key_pem)
    ends = {name: value for name, value in sandbox.environ().items() if name != "ASC_PRIVATE_KEY"}
    path = root / "etc" / "perfpower" / "cron.env"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{name}={shlex.quote(v)}\n" for name, v in {**given, **ends, **LESS}.items()))
