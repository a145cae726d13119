from __future__ import annotations

import os
import re
import signal

import pytest
from packaging.requirements import Requirement

from exporter import __version__
from tests.container.pair import GRACE, Pair, said, stopped
from tests.container.tools import BASE, CONTAINED, DOCKERFILE, REPOSITORY, inspected, logs, run, wait_until

# Found out inside the image: what may be written to, and whether the program was compiled beforehand.
WRITABLE = """
import os
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys", "/dev")]
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        if not os.path.islink(path) and os.access(path, os.W_OK):
            print(path)
"""
STATUS = "print(open('/proc/self/status').read())"
INSTALLED = """
import platform
from importlib.metadata import distributions
print(platform.python_version())
print(*(f"{one.name.lower().replace('_', '-')}=={one.version}" for one in distributions()))
"""


def python(image: str, *arguments: str) -> str:
    """What the image's Python writes to both streams, run as the exporter is."""
    command = ["podman", "run", "--rm", "--network=none", "--no-healthcheck", *CONTAINED]
    done = run(*command, "--entrypoint=python", image, *arguments)
    return done.stdout + done.stderr


def test_the_image_says_what_it_is_and_how_it_runs(image: str) -> None:
    """Fixed user, no shell between the engine and the program, a health check through the program itself."""
    found = inspected(image)
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["perfpower-exporter"], ["run"])
    assert found["Healthcheck"]["Test"] == ["CMD", "perfpower-exporter", "healthcheck"]
    assert config.get("StopSignal", "SIGTERM") in ("", "SIGTERM", "15")
    labels = {name.rpartition(".")[2]: text for name, text in config["Labels"].items()}
    assert (labels["version"], labels["licenses"]) == (__version__, "Apache-2.0")


def test_it_runs_without_any_right(image: str) -> None:
    """As started by docker-compose.yml: user 10001, no capability, and no way to one."""
    status = dict(re.findall(r"(\w+):\s+(\w+)", python(image, "-c", STATUS)))
    assert (status["Uid"], status["Gid"], status["NoNewPrivs"]) == ("10001", "10001", "1")
    assert (int(status["CapPrm"], 16), int(status["CapBnd"], 16)) == (0, 0)


def test_only_the_state_can_be_written(image: str) -> None:
    """With a read-only root file system the user of the image writes to the volume and nowhere else."""
    assert python(image, "-c", WRITABLE).split() == ["/var/lib/perfpower"]


def test_it_is_as_small_as_the_dockerfile_says(image: str) -> None:
    """What comes on top of the base image, in whole megabytes, and within a tenth as dependencies change."""
    added = inspected(image)["Size"] - inspected(BASE)["Size"]
    says = re.search(r"^# (\d+) MB on top of its base", DOCKERFILE.read_text(), re.M)
    assert says
    assert added / 1e6 == pytest.approx(int(says[1]), rel=0.1)


def test_what_is_installed_is_what_is_locked(image: str) -> None:
    """The dependencies of requirements.lock in their versions, the program, and no tool to install more."""
    version, *installed = python(image, "-c", INSTALLED).split()
    short = version.rpartition(".")[0]
    there = {"python_version": short, "python_full_version": version, "sys_platform": "linux"}
    lock = (REPOSITORY / "requirements.lock").read_text()
    pinned = [Requirement(line.rstrip(" \\")) for line in re.findall(r"^[a-z].*$", lock, re.M)]
    wanted = {f"{one.name}{one.specifier}" for one in pinned if not one.marker or one.marker.evaluate(there)}
    assert set(installed) == wanted | {f"perfpower-exporter=={__version__}"}


def test_the_program_is_compiled_beforehand(image: str) -> None:
    """A health check, twice a minute, compiles nothing: the file system would keep none of it."""
    loaded = re.findall(
        r"^# code object from (.*)$", python(image, "-v", "-c", "import exporter.healthcheck"), re.M
    )
    assert len(loaded) > 100
    assert [path for path in loaded if not path.startswith("'/opt/bytecode/")] == []


def test_it_turns_healthy_and_delivers_after_a_restart_what_it_owed(pair: Pair) -> None:
    """Polled with nobody to deliver to, told to end, started again: what was owed arrives without a poll."""
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    first = pair.exporter("first", **nobody)
    wait_until(lambda: said(first, "poll"), lambda: logs(first))
    first_process = ("podman", "exec", first, "python", "-c", "print(open('/proc/1/cmdline').read())")
    assert "perfpower-exporter\0run" in run(*first_process).stdout  # no init that hands signals on
    assert run("podman", "healthcheck", "run", first, check=False).returncode == 0
    assert inspected(first)["State"]["Health"]["Status"] == "healthy"
    status, seconds = stopped(first)
    (ending,) = said(first, "stopped")
    assert (status, seconds < GRACE, ending["owed"] > 0) == (0, True, True), logs(first)

    second = pair.exporter("second")
    wait_until(lambda: said(second, "delivery"), lambda: logs(second))
    (delivery, *_) = said(second, "delivery")
    assert (delivery["outcome"], delivery["owed"]) == ("ok", 0)
    assert stopped(second)[0] == 0
    assert said(second, "poll") == []


def test_a_stuck_exporter_turns_unhealthy(pair: Pair) -> None:
    """A process that no longer answers is found by the health check, which says so."""
    container = pair.exporter("stuck")
    wait_until(lambda: said(container, "started"), lambda: logs(container))
    process = inspected(container)["State"]["Pid"]
    os.kill(process, signal.SIGSTOP)
    try:
        done = run("podman", "healthcheck", "run", container, check=False)
    finally:
        os.kill(process, signal.SIGCONT)
    assert done.returncode == 1
    assert "no answer from 127.0.0.1:13134 (timed out)" in str(inspected(container)["State"]["Health"])
