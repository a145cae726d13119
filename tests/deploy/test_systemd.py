"""deploy/systemd: units that systemd takes, for the same pair on a machine of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.service import DRAIN
from tests.collector.running import BASE, OVERLAYS, run
from tests.container.tools import program
from tests.container.tools import run as run_program
from tests.deploy.manifests import longest_request
from tests.deploy.units import COLLECTOR, EXPORTER, UNITS, environment, unit


def installed(folder: Path, name: str) -> Path:
    """A copy of the unit whose program is here; systemd looks whether it is."""
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", (UNITS / name).read_text(), flags=re.M)
    path = folder / name.replace("@.", "@datadog.")
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", [EXPORTER, COLLECTOR])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    """Without a warning: a misspelt setting would be ignored."""
    analyze = program("systemd-analyze", "install systemd")
    done = run_program(analyze, "verify", "--man=no", str(installed(tmp_path, name)))
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("name", [EXPORTER, COLLECTOR])
def test_the_service_is_contained(tmp_path: Path, name: str) -> None:
    """By systemd's own measure, of which 10 is an ordinary service and less than 2 is little exposure."""
    analyze = program("systemd-analyze", "install systemd")
    run_program(analyze, "security", "--offline=yes", "--threshold=20", str(installed(tmp_path, name)))


def test_the_services_have_time_to_end() -> None:
    """The exporter for what it owes, the Collector, which is stopped after it, for its longest request."""
    assert float(unit(EXPORTER)["TimeoutStopSec"][0]) > DRAIN
    assert float(unit(COLLECTOR)["TimeoutStopSec"][0]) > longest_request()
    assert unit(COLLECTOR)["Before"] == [EXPORTER]


def test_a_wrong_configuration_is_not_tried_again() -> None:
    """Exit status 2 says that another start would end in the same way; anything else is tried again."""
    assert unit(EXPORTER)["Restart"] == ["always"]
    assert unit(EXPORTER)["RestartPreventExitStatus"] == ["2"]


def test_the_exporters_key_is_a_credential() -> None:
    """Readable by the service alone, whose user exists only while it runs."""
    assert unit(EXPORTER)["LoadCredential"] == ["keys:/etc/perfpower/keys"]
    variables = environment(EXPORTER, Path("/credentials"))
    assert variables["ASC_PRIVATE_KEY_FILE"] == "/credentials/keys_AuthKey.p8"
    assert variables["PERFPOWER_STATE"] == f"%S/{unit(EXPORTER)['StateDirectory'][0]}/state.db"
    assert unit(EXPORTER)["DynamicUser"] == ["yes"]


def test_an_empty_address_does_not_open_the_collector() -> None:
    """systemd takes just these assignments out of what collector.env says; unset, they are this machine's."""
    named = set(re.findall(r"\$\{env:(\w+_BIND):-127\.0\.0\.1\}", BASE.read_text()))
    assert set(unit(COLLECTOR)["UnsetEnvironment"][0].split()) == {f"{name}=" for name in named}


@pytest.mark.parametrize(
    ("backend", "more"),
    [
        ("datadog", {}),
        ("signalfx", {"SPLUNK_REALM": "us1", "SPLUNK_HEC_URL": "https://hec.example.com/services/collector"}),
    ],
)
def test_the_collector_takes_what_the_unit_gives_it(
    otelcol: Path, tmp_path: Path, backend: str, more: dict[str, str]
) -> None:
    """Its arguments are files of ours; its tokens are read from the credentials, or missed by name."""
    (command,) = unit(COLLECTOR)["ExecStart"]
    assert command.split()[1:] == [
        f"--config=/etc/perfpower/{BASE.name}",
        "--config=/etc/perfpower/collector/%i.yaml",
    ]
    configs = [BASE, OVERLAYS / f"{backend}.yaml"]
    variables = {**environment(COLLECTOR, tmp_path), **more}
    refused = run(otelcol, ["validate"], configs, variables)
    assert refused.returncode != 0
    for token in ("dd_api_key", "splunk_access_token", "splunk_hec_token"):
        (tmp_path / f"tokens_{token}").write_text("made up\n")
    done = run(otelcol, ["validate"], configs, variables)
    assert done.returncode == 0, done.stderr
    assert re.search("tokens_(dd_api_key|splunk_)", refused.stderr)
