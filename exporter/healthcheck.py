"""`healthcheck`: what a container asks the exporter that runs in it, through the same program."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from pydantic import ValidationError

from exporter.errors import ConfigError, ExporterError
from exporter.settings import Http
from exporter.settings.document import Tree, read_file
from exporter.settings.environment import overlay

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # listened on, but nowhere to connect to
_LONGEST_ANSWER = 4096


def listening(config: Path | None, environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port at which the exporter of this configuration answers on this machine.

    Only `http.listen` is looked at; nothing else has to be complete, since `run --sandbox` has no account.

    Raises:
        ConfigError: the file cannot be read, or `http.listen` does not say where to ask.
    """
    tree = read_file(config, environ) if config else Tree()
    overlay(tree, environ)
    try:
        address = Http.model_validate(tree.root.get("http") or {}).address
    except ValidationError:
        raise ConfigError("http cannot be understood", remedy="`check` says what is wrong with it.") from None
    if address is None or address[1] == 0:
        raise ConfigError(
            "http.listen names no port that could be asked", remedy="Set it, as in 127.0.0.1:13134."
        )
    return _EVERYWHERE.get(address[0], address[0]), address[1]


def ask(host: str, port: int, *, timeout: float = 5.0) -> None:
    """Returns when /livez at this address says that the exporter is alive.

    Args:
        timeout: seconds to connect, and for each part of the answer.

    Raises:
        ExporterError: it is not alive, with its own reasons, or it does not answer.
    """
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        says = answer.read(_LONGEST_ANSWER).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        raise ExporterError(f"no answer from {host}:{port} ({error or type(error).__name__})") from None
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        raise ExporterError(f"not alive: {says or answer.reason}")
