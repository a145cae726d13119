from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter import __version__
from exporter.cli import main
from exporter.sandbox import AppStoreSandbox, Fault, Sandbox
from tests.service.service_world import (
    LESS,
    PYTHON_ENVIRONMENT,
    command,
    ended,
    running,
    terminate,
    wait_until,
)

ACCOUNT = {"ASC_KEY_ID": "KEY", "ASC_ISSUER_ID": "ISSUER", "ASC_PRIVATE_KEY": "hush-hush-not-a-key"}


@pytest.mark.parametrize("arguments", [("run",), ("once",), ("once", "--dry-run"), ("check",), ("plan",)])
@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "no App Store Connect account is configured"),
        (ACCOUNT, "account main: the private key is not a PEM file"),
        ({**ACCOUNT, "PERFPOWER__SCHEDULE__HEARTBEAT": "soon"}, "schedule.heartbeat"),
        ({"PERFPOWER_CONFIG": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_a_configuration_error_is_a_sentence_and_status_2(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str], says: str
) -> None:
    """No traceback, no secret, nothing started, nothing written."""
    state = {
        "PERFPOWER_STATE": str(tmp_path / "state" / "state.db"),
        "PERFPOWER__HTTP__LISTEN": "127.0.0.1:0",
    }
    https = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1"}
    result = CliRunner(env={**dict.fromkeys(ACCOUNT), **state, **https, **environ}).invoke(
        main, list(arguments)
    )
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert "hush" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command_name", ["run", "once", "check", "plan"])
def test_a_certificate_that_is_missing_is_a_configuration_error(tmp_path: Path, command_name: str) -> None:
    """It is found before anything is asked or sent."""
    environ = {
        **ACCOUNT,
        "PERFPOWER_STATE": str(tmp_path / "state.db"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "no.pem"),
    }
    result = CliRunner(env=environ).invoke(main, [command_name])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: a certificate file of otlp cannot be used")


def test_an_unusable_state_is_a_sentence_and_status_1(tmp_path: Path) -> None:
    """A damaged state file is no configuration error, and no traceback either."""
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 1000)
    environ = {**ACCOUNT, "PERFPOWER_STATE": str(path)}
    done = ended(command("once"), environ, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: the state file cannot be used (file is not a database).")
    assert "Traceback" not in done.stderr


def test_each_command_explains_itself() -> None:
    """The version, the commands with their help, and exit status 2 for what is none."""
    runner = CliRunner()
    assert runner.invoke(main, ["--version"]).output == f"perfpower-exporter, version {__version__}\n"
    assert set(main.commands) == {
        *("run", "once", "check", "plan", "sandbox", "healthcheck", "assets"),
        *("apps", "builds", "metrics", "insights", "diagnostics", "parse", "token"),
    }
    for name in main.commands:
        result = runner.invoke(main, [name, "-h"])
        assert result.exit_code == 0
        assert result.output.startswith("Usage: ")
    assert runner.invoke(main, ["fly"]).exit_code == 2


def test_the_sandbox_alone_prints_what_an_exporter_needs(tmp_path: Path) -> None:
    """Its lines are read by a shell; with them `check` goes well; SIGTERM ends it with status 0."""
    output = tmp_path / "sandbox.env"
    with running(command("sandbox"), {"PYTHONUNBUFFERED": "1"}, output) as process:
        wait_until(lambda: "OTEL_EXPORTER_OTLP_ENDPOINT" in output.read_text())
        shell = f". {output}; export PERFPOWER_STATE={tmp_path}/state.db; exec {' '.join(command('check'))}"
        done = ended(["/bin/sh", "-c", shell], LESS, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert terminate(process) == 0


# What ends a command early

# Ctrl-C raises, also where whoever runs the tests has it ignored.
INTERRUPTIBLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from exporter.cli import main; main(sys.argv[1:])"
)
LOOKING = [("plan",), ("check",), ("once", "--dry-run")]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(appstore=AppStoreSandbox(day=lambda: 100.0)) as both:
        yield both


@pytest.mark.parametrize("arguments", LOOKING)
def test_ctrl_c_ends_a_command_without_a_word(
    sandbox: Sandbox, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The exit status is the one that a shell gives for SIGINT; nothing is said of it."""
    sandbox.appstore.fail("/v1/apps", Fault(delay=40), times=5)
    environ = {**sandbox.environ(), **LESS, "PERFPOWER_STATE": str(tmp_path / "state.db")}
    output = tmp_path / "output"
    with running([sys.executable, "-c", INTERRUPTIBLE, *arguments], environ, output) as process:
        wait_until(lambda: sandbox.appstore.requests)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert not [line for line in output.read_text().splitlines() if not line.startswith("✓")]


@pytest.mark.parametrize("arguments", LOOKING)
def test_a_pipe_that_nobody_reads_ends_a_command_without_a_word(
    sandbox: Sandbox, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """As after `| head`: the exit status is the one that a shell gives for SIGPIPE."""
    environ = {
        **PYTHON_ENVIRONMENT,
        **sandbox.environ(),
        **LESS,
        "PERFPOWER_STATE": str(tmp_path / "state.db"),
    }
    with subprocess.Popen(
        command(*arguments), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141
