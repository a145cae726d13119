"""The log and the failures, as docs/operating.md tells them to whoever is called at night."""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import errors, logs
from tests.service.service_world import ended

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {level: level for level in ("debug", "info", "warning", "error")} | {"exception": "error"}
COMPLAIN = """
import logging, sys
from exporter import logs
log = logs.configure("info", sys.argv[1])
skipped = 'Execution of job "%s" skipped: maximum number of running instances reached (%d)'
logging.getLogger("apscheduler.scheduler").warning(skipped, "poll main", 1)
logging.getLogger("apscheduler.scheduler").warning("the store of jobs is gone")
log.warning("cycle.still_running", account="main", next_poll=None)
try:
    raise KeyError("a bug")
except KeyError:
    logging.getLogger("library").exception("it broke")
    log.exception("poll.failed", account="main", reason="bug")
"""


def code() -> Iterator[ast.AST]:
    for path in (ROOT / "exporter").rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def logged() -> dict[str, set[str]]:
    """Event → levels of all calls of a logger in the code."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in code():
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log") | ast.Attribute(attr="_log"), attr=level),
                args=[event, *_],
            ) if level in LEVELS:
                for name in names(event):
                    found[name].add(LEVELS[level])
    return dict(found)


def names(event: ast.expr) -> list[str]:
    """What a call may log: a constant, or one of two."""
    match event:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.IfExp(body=body, orelse=orelse):
            return [*names(body), *names(orelse)]
        case _:
            raise AssertionError(f"line {event.lineno}: the event of a log line is no plain text")


def kinds(base: type[errors.ExporterError]) -> Iterator[type[errors.ExporterError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


def page() -> str:
    return (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def test_the_table_of_events_is_what_the_code_logs() -> None:
    """Each event that is logged is in the table with just its levels, and the table names no other."""
    assert logged() == {name: set(event.levels) for name, event in logs.EVENTS.items()}


def test_each_event_says_what_it_means_and_a_bad_one_what_to_do() -> None:
    """Nobody is called at night by a line that leaves him alone with it."""
    for name, event in logs.EVENTS.items():
        assert event.meaning.endswith("."), name
        assert f"| `{name}` | {', '.join(event.levels)} |" in page()
        if {"warning", "error"} & set(event.levels):
            assert event.remedy.endswith("."), name


def test_each_reason_of_a_failure_is_told_with_a_remedy() -> None:
    """Every kind of error has a reason of its own; all of them are on the page, with what to do."""
    found = list(kinds(errors.ExporterError))
    assert len({kind.reason for kind in found} | set(errors.NOT_FROM_APPLE)) == len(found) + 2
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for kind in found:
        assert "advice" in vars(kind), kind
        if kind is not errors.AppStoreError:  # its kinds are told
            assert any(row.startswith(f"| `{kind.reason}` |") and kind.advice in row for row in rows), kind


def test_reasons_that_stand_in_the_code_are_told() -> None:
    """A failure that is counted without an error's class is on the page too."""
    spelled = {
        str(value.value)
        for node in code()
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "reason" and isinstance(value, ast.Constant)
    }
    assert spelled == set(errors.NOT_FROM_APPLE)
    for reason in spelled:
        assert f"| `{reason}` |" in page()


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_libraries_say_comes_in_our_form(tmp_path: Path, form: str) -> None:
    """In the same lines, without colours where no terminal is; a skipped job is told by our event alone."""
    done = ended([sys.executable, "-c", COMPLAIN, form], {}, tmp_path)
    assert "\x1b" not in done.stderr
    assert "maximum number of running instances" not in done.stderr
    assert "next_poll" not in done.stderr
    if form == "json":
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert [(line["level"], line["event"]) for line in lines] == [
            ("warning", "the store of jobs is gone"),
            ("warning", "cycle.still_running"),
            ("error", "it broke"),
            ("error", "poll.failed"),
        ]
        assert all("KeyError: 'a bug'" in line["exception"] for line in lines[2:])
        assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in lines)
    else:
        assert done.stderr.count("KeyError: 'a bug'") == 2
        assert "warning" in done.stderr.splitlines()[0]
