from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.service.service_world import command, running, wait_until


def test_the_sandbox_shows_the_whole_way_and_leaves_nothing(tmp_path: Path) -> None:
    """`run --sandbox` polls, delivers and says so; Ctrl-C ends it with status 0, and no file stays."""
    folder, output = tmp_path / "tmp", tmp_path / "out" / "log"
    folder.mkdir()
    output.parent.mkdir()
    environ = {"TMPDIR": str(folder), "PERFPOWER__HTTP__LISTEN": "127.0.0.1:0", "PYTHONUNBUFFERED": "1"}
    with running(command("run", "--sandbox"), environ, output) as process:
        wait_until(lambda: "and 5" in output.read_text() or "metrics in all" in output.read_text(), 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    text = output.read_text()
    assert "nothing leaves this machine" in text
    assert " polled     3 apps, requests: 4; 0 of 3 answers as before" in text
    assert " delivered  " in text
    assert " started    status page at http://127.0.0.1:" in text
    assert " stopped    items still owed: 0" in text
    assert "com.example.harbour" in text
    assert "7.40.0: +61% against the versions before, slower: a regression" in text
    assert "Traceback" not in text
    assert "PRIVATE KEY" not in text
    assert os.listdir(folder) == []
    assert os.listdir(output.parent) == ["log"]
