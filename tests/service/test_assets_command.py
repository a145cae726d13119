"""`assets`: dashboards and alerts for a user's own configuration, without an account and without a key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from exporter.asset_files import pace_of, wishes
from exporter.assets import BACKENDS
from exporter.assets.alerts import Pace
from exporter.assets.dashboards import dashboards
from exporter.assets.model import Wishes
from exporter.assets.rendering import render
from exporter.cli import main
from exporter.settings import Alerts, Schedule

ROOT = Path(__file__).resolve().parents[2]
NOTHING = dict.fromkeys(
    (
        *("ASC_KEY_ID", "ASC_ISSUER_ID", "ASC_PRIVATE_KEY", "ASC_PRIVATE_KEY_FILE"),
        *("PERFPOWER_CONFIG", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
)
HOUR = 3600.0


def run(*arguments: str | Path, **environ: str) -> Result:
    return CliRunner(env={**NOTHING, **environ}).invoke(main, ["assets", *map(str, arguments)])


def found(folder: Path) -> dict[str, str]:
    """Path below the folder → text."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_are_written_without_an_account(tmp_path: Path, backend: str) -> None:
    """The folder holds just what the renderer gives, below the backend's name; a line says how much."""
    result = run(backend, "--out", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    written = found(tmp_path / "new" / "folder")
    assert written == render(backend, Wishes())
    assert all(path.split("/")[1] == backend for path in written)
    for kind, count in (("dashboards", 4), ("alerts", 33 if backend == "prometheus" else 31)):
        said = f"{count} {kind} in {tmp_path / 'new' / 'folder' / kind / backend}\n"
        assert (said in result.output) == any(path.startswith(f"{kind}/") for path in written)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_again_changes_nothing(tmp_path: Path, backend: str) -> None:
    """Files are written over, byte for byte the same, and nothing is said to be left."""
    first = run(backend, "--out", tmp_path)
    before = found(tmp_path)
    again = run(backend, "--out", tmp_path)
    assert (again.exit_code, again.output) == (0, first.output)
    assert found(tmp_path) == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("poll", ["* * * * *", "0 6 * * mon", "0 6 1 * *"])
def test_any_schedule_has_alerts(tmp_path: Path, backend: str, poll: str) -> None:
    """From a poll a minute to one a month: no window or threshold is one that a renderer cannot say."""
    result = run(backend, "--out", tmp_path, PERFPOWER__SCHEDULE__POLL=poll)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_end_with_one_newline(backend: str) -> None:
    """They are kept in git, where a missing newline is noise; names are fit for any file system."""
    for path, text in render(backend, Wishes()).items():
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert all(part.strip(".") and part.isascii() for part in path.split("/")), path


def test_the_configuration_decides(tmp_path: Path) -> None:
    """What is off is not written; services and whom to tell stand in the alerts."""
    config = tmp_path / "exporter.yaml"
    config.write_text(
        "accounts: [{key_id: '${NOT_SET_HERE}'}]\n"
        "otlp: {headers: {authorization: '${NOR_THIS}'}}\n"
        "alerts:\n"
        "  services: [shop-ios]\n"
        "  notify: '@slack-mobile'\n"
        "  disabled: [KeyHourUsedUp]\n"
        "  thresholds: {NewHeavyProblem: 0.75}\n"
        "  runbook: https://wiki.example.com/alerts\n",
        encoding="utf-8",
    )
    result = run("datadog", "--out", tmp_path / "out", "--config", config)
    assert result.exit_code == 0, result.output
    assert "30 alerts in" in result.output
    assert "no link" not in result.output
    written = found(tmp_path / "out")
    assert "alerts/datadog/KeyHourUsedUp.json" not in written
    regressed = written["alerts/datadog/LaunchTimeRegressed.json"]
    for part in ("shop-ios", "@slack-mobile", "https://wiki.example.com/alerts#launchtimeregressed"):
        assert part in regressed
    assert ">= 75" in written["alerts/datadog/NewHeavyProblem.json"]  # per cent


def test_what_an_earlier_configuration_left_is_named(tmp_path: Path) -> None:
    """A file that is not written any more stays, and a line says so: somebody may have installed it."""
    run("datadog", "--out", tmp_path)
    for other in ("README.md", "datadog/terraform.tfstate", "datadog/.terraform.lock.hcl"):
        (tmp_path / "alerts" / other).write_text("not ours\n")
    left = tmp_path / "alerts" / "datadog" / "KeyHourUsedUp.json"
    result = run("datadog", "--out", tmp_path, PERFPOWER__ALERTS__DISABLED="[KeyHourUsedUp]")
    assert result.exit_code == 0
    assert left.exists()
    assert result.output.splitlines()[2:] == [
        "messages name docs/alerts.md, which is no link: give alerts.runbook, where your team can open it",
        f"not of this configuration, and still there: {left}; delete it, or it is installed as well",
    ]


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (("nagios", "--out", "out"), {}, "is not one of 'datadog', 'splunk', 'grafana', 'prometheus'"),
        (("datadog",), {}, "Missing option '--out'"),
        ((), {}, "Missing argument"),
        (("datadog", "--out", "out", "-c", "nowhere.yaml"), {}, "nowhere.yaml"),
        (
            ("datadog", "--out", "out"),
            {"PERFPOWER__ALERTS__DISABLED": "[HangRateRegresed]"},
            "alerts.disabled[0] must be the id of an alert; did you mean HangRateRegressed",
        ),
        (
            ("splunk", "--out", "out"),
            {"PERFPOWER__ALERTS__THRESHOLDS": "{LaunchTimePoor: 2}"},
            "alerts.thresholds.LaunchTimePoor has no threshold to choose",
        ),
        (
            ("datadog", "--out", "out"),
            {"PERFPOWER__ALERTS__THRESHOLDS": "{DataStale: 60}"},
            "alerts.thresholds.DataStale: must not be less than the 21600 seconds between two polls",
        ),
        (
            ("prometheus", "--out", "out"),
            {"PERFPOWER__ALERTS__THRESHOLDS": "{NewHeavyProblem: 20}"},
            "must be at most 1 for NewHeavyProblem; unless set it is 0.5",
        ),
        (
            ("prometheus", "--out", "out"),
            {"PERFPOWER__ALERTS__THRESHOLDS": "{KeyHourUsedUp: 10}"},
            "must be at most 0.9 for KeyHourUsedUp",
        ),
        (("grafana", "--out", "out"), {"PERFPOWER__SCHEDULE__POLL": "now"}, "schedule.poll must have five"),
    ],
)
def test_a_mistake_is_a_sentence_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    says: str,
) -> None:
    """No traceback, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, **environ)
    assert result.exit_code == 2
    assert says in result.output
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_a_sentence_and_status_2(tmp_path: Path) -> None:
    """A folder that cannot be made names itself and what to do."""
    (tmp_path / "alerts").write_text("a file\n")
    result = run("prometheus", "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'alerts' / 'prometheus'}")
    assert result.stderr.endswith("Name another folder with --out, or let yourself write there.\n")


def test_on_failure_nothing_is_half_done(tmp_path: Path) -> None:
    """The files of before stay as they are, all of them, and nothing lies beside them."""
    run("datadog", "--out", tmp_path)
    in_the_way = tmp_path / "dashboards" / "datadog" / "release-health.json"
    in_the_way.unlink()
    in_the_way.mkdir()
    before = found(tmp_path)
    result = run("datadog", "--out", tmp_path, PERFPOWER__ALERTS__NOTIFY="@slack-mobile")
    assert result.exit_code == 2
    assert found(tmp_path) == before


@pytest.mark.parametrize("heartbeat", ["1s", "4m", "1h"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_heartbeat_has_alerts(tmp_path: Path, backend: str, heartbeat: str) -> None:
    """They wait for three of the schedule's heartbeats, whichever backend."""
    result = run(backend, "--out", tmp_path, PERFPOWER__SCHEDULE__HEARTBEAT=heartbeat)
    assert result.exit_code == 0, result.output
    seconds = {"1s": 1.0, "4m": 240.0, "1h": 3600.0}[heartbeat]
    assert found(tmp_path) == render(backend, Wishes(), Pace(heartbeat=seconds))


ACCOUNTS = """
accounts:
  - key_id: "${NOT_SET_HERE}"
    environment: beta
    apps:
      include: ["com.example.*"]
      service_names: {com.example.shop: shop-ios}
"""


@pytest.mark.parametrize(
    ("accounts", "alerts", "says"),
    [
        (ACCOUNTS, "{services: [shop-ios, com.example.other], environments: [beta]}", []),
        (ACCOUNTS, "{services: [shop-oss]}", ["'shop-oss'; known: shop-ios"]),
        (ACCOUNTS, "{services: [com.example.shop]}", ["'com.example.shop'; known: shop-ios"]),
        (ACCOUNTS, "{environments: [production]}", ["'production'; known: beta"]),
        ("", "{services: [anything], environments: [any]}", []),
        ("accounts: [{apps: [com.a.b], environment: '${E}'}]\n", "{services: [x]}", []),
        ("accounts: [{apps: [com.a.b]}]\n", "{services: [x]}", ["'x'; known: bundle ids, as under apps"]),
        ("accounts: [{apps: ['1234']}]\n", "{services: [x]}", []),
        ("accounts: [{apps: {exclude: x}}]\n", "{services: [x]}", ["'x'"]),
        ("accounts: [{apps: 7.5}, 3]\n", "{services: [x]}", []),
        ("accounts: [{environment: [a]}]\n", "{services: [x]}", []),
    ],
)
def test_what_no_account_has_is_a_warning(
    tmp_path: Path, accounts: str, alerts: str, says: list[str]
) -> None:
    """Alerts about a misspelt service or environment would never fire; what is not known is not judged."""
    config = tmp_path / "exporter.yaml"
    config.write_text(f"{accounts}\nalerts: {alerts}\n", encoding="utf-8")
    result = run("datadog", "--out", tmp_path / "out", "--config", config)
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == len(says)
    for line, part in zip(lines, says, strict=True):
        assert line.startswith("warning: alerts.")
        assert part in line


@pytest.mark.parametrize(
    ("poll", "one", "two"),
    [
        ("17 */6 * * *", 6 * HOUR, 12 * HOUR),
        ("0 3 * * *", 24 * HOUR, 48 * HOUR),
        ("0 9 * * mon-fri", 72 * HOUR, 96 * HOUR),
        ("*/30 9-17 * * mon-fri", 63.5 * HOUR, 64 * HOUR),
        ("* * * * mon-fri", 48 * HOUR + 60, 48 * HOUR + 120),
        ("0 6 1 * *", 31 * 24 * HOUR, 62 * 24 * HOUR),
        ("0 0 29 feb *", (4 * 365 + 1) * 24 * HOUR, 2 * (4 * 365 + 1) * 24 * HOUR),
        ("* * * * *", 60, 120),
    ],
)
def test_the_pace_of_a_schedule(poll: str, one: float, two: float) -> None:
    """Nights, weekends and long months count, once; of jitter what the hour on top does not hold."""
    assert pace_of(Schedule(poll=poll, jitter=300.0, heartbeat=90.0)) == (one, two, 90.0)
    late = 2.5 * HOUR
    assert pace_of(Schedule(poll=poll, jitter=3 * HOUR, heartbeat=90.0)) == (one + late, two + late, 90.0)


def test_what_is_not_chosen_is_everything() -> None:
    """Without a section: all services and environments, all alerts, our own runbook."""
    assert wishes(Alerts()) == Wishes()


def test_the_page_names_files_that_are_written() -> None:
    """What docs/dashboards.md tells people to install is there under that name."""
    page = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    there = {path for backend in BACKENDS for path in render(backend, Wishes())}
    folders = {path.rpartition("/")[0] for path in there}
    named = set(re.findall(r"(?<![/\w])(?:dashboards|alerts)/[a-z]+(?:/[a-z][a-z.-]*[a-z])?", page))
    assert named <= there | folders, named - there - folders
    assert {f"{kind}/{backend}" for kind in ("dashboards", "alerts") for backend in BACKENDS} & folders <= {
        "/".join(path.split("/")[:2]) for path in named
    }


def test_the_example_of_the_page_is_a_configuration() -> None:
    """The section `alerts` that docs/dashboards.md shows can be used as it stands."""
    page = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"<!-- checked: alerts -->\n\n```yaml\n(.*?)```", page, re.DOTALL)
    chosen = Alerts.model_validate(yaml.safe_load(example)["alerts"])
    assert chosen.model_fields_set == set(Alerts.model_fields)


def test_the_page_names_each_dashboard() -> None:
    """Nobody has to install one to learn that it is there."""
    page = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    for board in dashboards():
        assert f"| {board.title.removeprefix('App Store: ').capitalize()} |" in page
