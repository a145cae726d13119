"""Sinks on this machine: the terminal and a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from google.protobuf import json_format

from exporter.otlp.edit import request_of
from exporter.otlp.encode import Body
from exporter.otlp.sink import Outcome, Reply
from exporter.otlp.table import lines


class ConsoleSink:
    """A readable table on a stream: one line a point, and one an event with its call stack below."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def send(self, body: Body) -> Reply:
        """Print one request; see Sink."""
        for line in lines(body):
            self._stream.write(line + "\n")
        self._stream.flush()
        return Reply(Outcome.ACCEPTED)

    def close(self) -> None:
        """Leave the stream to its owner."""


class FileSink:
    """OTLP/JSON, one request a line, as the Collector's `otlpjsonfile` receiver reads it.

    Metrics and logs stand in one file: for each of its pipelines the receiver reads every line, takes what is
    of that pipeline's signal, and finds nothing in the others.

    A line is on the disk before it counts as accepted. The file is opened for each line, so that it can be
    moved away (logrotate) at any time. A file that is made here is for its owner alone, as events hold call
    stacks; one that is there keeps its rights.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, body: Body) -> Reply:
        """Append one request; see Sink."""
        fields = json_format.MessageToDict(request_of(body), use_integers_for_enums=True)
        line = json.dumps(fields, separators=(",", ":"), ensure_ascii=False) + "\n"
        try:
            with open(self._path, "a+b", opener=_for_the_owner) as file:
                if _is_cut_off(file):  # by a kill or a full disk: what follows stands on a line of its own
                    file.write(b"\n")
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return Reply(Outcome.RETRY, message=f"cannot write {self._path}: {error.strerror}")
        return Reply(Outcome.ACCEPTED)

    def close(self) -> None:
        """Nothing is kept open."""


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_cut_off(file: IO[bytes]) -> bool:
    """Whether a file's last line has no end."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
