from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli import main
from exporter.errors import ConfigError
from exporter.sandbox import AppStoreSandbox, Sandbox
from exporter.sandbox.shell import directions, env_file, script
from tests.service.service_world import command, ended, running, terminate, wait_until

TEXT = script({"ASC_KEY_ID": "KEY"})
REAL = {  # what somebody has exported who uses the exporter in earnest
    "ASC_ISSUER_ID": "real",
    "ASC_PRIVATE_KEY_FILE": "real.p8",
    "ASC_APPS": "com.example.real",
    "PERFPOWER_CONFIG": "real.yaml",
    "PERFPOWER_STATE": "real.db",
    "PERFPOWER__ACCOUNTS__0__KEY_ID": "real",
    "PERFPOWER__OTLP__PROTOCOL": "file",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "https://real.example",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://real.example",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "api-key=real",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "real.pem",
}
OURS = re.compile("ASC_|PERFPOWER|OTEL_|perfpower")


def sourced(text: str, environ: dict[str, str], folder: Path) -> dict[str, str]:
    """The variables of a shell that has sourced this text, as far as they are the exporter's."""
    (folder / "text").write_text(text)
    done = ended(["/bin/sh", "-euc", ". ./text; env -0"], environ, folder)
    assert done.stderr == ""
    pairs = (pair.partition("=") for pair in done.stdout.split("\0"))
    return {name: value for name, _, value in pairs if OURS.match(name)}


def test_only_the_variables_of_the_sandbox_are_left(tmp_path: Path) -> None:
    """Whatever the exporter's settings read and somebody has exported is gone; nothing else is."""
    given = {"ASC_KEY_ID": "KEY", "ASC_PRIVATE_KEY": "-----BEGIN\nit's $HOME `id`\n-----END\n"}
    assert sourced(script(given), {**REAL, "UNRELATED": "kept"}, tmp_path) == given


def test_each_variable_that_the_settings_name_is_taken_out(tmp_path: Path) -> None:
    """The reference of the configuration knows no variable that would stay."""
    reference = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    named = set(re.findall(r"\b(?:ASC|PERFPOWER|OTEL_EXPORTER_OTLP)_[A-Z_]*[A-Z]\b", reference))
    assert {"ASC_APPS", "PERFPOWER_CONFIG", "PERFPOWER_STATE"} < named
    assert sourced(script({}), dict.fromkeys(named, "real"), tmp_path) == {}


def test_a_variable_with_an_odd_name_or_value_does_no_harm(tmp_path: Path) -> None:
    """A name that no shell has is left alone, and a value is never run or taken for a name."""
    environ = {
        "ASC_X Y": "1",
        "ASC_Z;touch harm": "2",
        "HOSTILE": "\nPATH=\n$(touch harm)",
        "ASC_APPS": "a b",
    }
    assert set(sourced(script({}), environ, tmp_path)) <= {"ASC_X Y", "ASC_Z;touch harm"}
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_the_text_says_what_it_is() -> None:
    """Who finds the file learns that its key is worth nothing."""
    assert TEXT.startswith("# ")
    assert "opens nothing but this sandbox" in TEXT.partition("for ")[0]


def test_the_file_is_for_its_owner_and_goes_at_the_end(tmp_path: Path) -> None:
    """Mode 0600, the whole text, no temporary file beside it, and nothing left behind."""
    path = tmp_path / "sandbox.env"
    with env_file(path, TEXT):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() == TEXT
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["", TEXT, TEXT + "export MORE=1\n"])
def test_what_a_sandbox_left_behind_is_replaced(tmp_path: Path, left: str) -> None:
    """After a kill the file is still there; an empty one, as mktemp makes it, is taken as well."""
    path = tmp_path / "sandbox.env"
    path.write_text(left)
    path.chmod(0o644)
    with env_file(path, TEXT):
        assert path.read_text() == TEXT
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_longer_ours_stays(tmp_path: Path) -> None:
    """Another sandbox has taken the name over, or somebody has written something into it."""
    path = tmp_path / "sandbox.env"
    with env_file(path, TEXT):
        with env_file(path, TEXT + "# another\n"):
            pass
        path.write_text(TEXT + "export MINE=1\n")
    assert path.read_text() == TEXT + "export MINE=1\n"


def test_a_file_that_went_away_is_no_error(tmp_path: Path) -> None:
    """Somebody tidied up before the sandbox ended; a folder of that name is left alone."""
    path = tmp_path / "sandbox.env"
    with env_file(path, TEXT):
        path.unlink()
    with env_file(path, TEXT):
        path.unlink()
        path.mkdir()
    assert path.is_dir()


def test_what_no_sandbox_wrote_is_left_alone(tmp_path: Path) -> None:
    """Settings of one's own, links, folders and pipes are neither replaced nor read."""
    settings, link, pipe = tmp_path / ".env", tmp_path / "link", tmp_path / "pipe"
    settings.write_text("ASC_KEY_ID=real\n")
    link.symlink_to(tmp_path / "nowhere")
    os.mkfifo(pipe)
    before = sorted(tmp_path.iterdir())
    for path in (settings, link, pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(ConfigError, match="no sandbox wrote") as caught, env_file(path, TEXT):
            pytest.fail("it was taken")
        assert str(caught.value).startswith(f"{path}: ")
    assert sorted(tmp_path.iterdir()) == before
    assert settings.read_text() == "ASC_KEY_ID=real\n"


@pytest.mark.parametrize("name", ["no/such/folder/file", "x" * 255, "x" * 250, "file/below"])
def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path, name: str) -> None:
    """A missing folder, a name that is too long, a file for a folder: nothing is left, and no key is told."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written") as caught, env_file(tmp_path / name, TEXT):
        pytest.fail("it was written")
    assert caught.value.remedy
    assert "KEY" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("day", "version"), [(0.0, "7.40.0"), (12.0, "7.40.0"), (13.0, "7.41.0")])
def test_the_newest_build_is_named(day: float, version: str) -> None:
    """It is on the store and has diagnostics: not the version whose data is still to come."""
    with Sandbox(appstore=AppStoreSandbox(day=lambda: day)) as sandbox:
        assert sandbox.newest_build() == f"com.example.harbour:{version}"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("sandbox.env", "sourced by: . ./sandbox.env"),
        ("/var/tmp/sandbox.env", "sourced by: . /var/tmp/sandbox.env"),
        ("my folder/-e", "sourced by: . './my folder/-e'"),
    ],
)
def test_the_way_to_source_the_file_is_told(path: str, line: str) -> None:
    """The dot looks into PATH for a bare name, so a folder is always named."""
    assert line in directions(Path(path), "com.example.harbour:7.40.0").splitlines()


def test_the_command_keeps_its_variables_in_a_file(tmp_path: Path) -> None:
    """Once it says ready the file is there; the commands that it names work, whatever was exported before."""
    output, path = tmp_path / "output", tmp_path / "sandbox.env"
    with running(
        command("sandbox", "--env-file", "sandbox.env"), {"TMPDIR": str(tmp_path)}, output
    ) as process:
        wait_until(lambda: "--callstack\n" in output.read_text())
        told = output.read_text()
        assert "sourced by: . ./sandbox.env\n" in told
        assert "PRIVATE" not in told
        key = path.read_text()
        examples = [line.split()[1:] for line in told.splitlines() if line.startswith("  ")]
        assert [example[0] for example in examples] == ["metrics", "diagnostics"]
        for example in examples:
            shell = f". ./sandbox.env; exec {shlex.join(command(*example, '--table'))}"
            done = ended(["/bin/sh", "-c", shell], REAL, tmp_path)
            assert done.returncode == 0, done.stderr
            assert ("launchTime" if example[0] == "metrics" else "▶") in done.stdout
        state = ended(["/bin/sh", "-c", '. ./sandbox.env; echo "$PERFPOWER_STATE"'], REAL, tmp_path)
        folder = Path(state.stdout.strip()).parent
        assert folder.is_dir()
        assert terminate(process) == 0
    assert key.count("BEGIN PRIVATE KEY") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["output"]


def test_the_command_refuses_a_file_that_is_somebodys(tmp_path: Path) -> None:
    """A sentence, status 2, the file as it was, and no sandbox that waits."""
    path = tmp_path / ".env"
    path.write_text("ASC_KEY_ID=real\n")
    result = CliRunner().invoke(main, ["sandbox", "--env-file", str(path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}: there is something here that no sandbox wrote")
    assert path.read_text() == "ASC_KEY_ID=real\n"
