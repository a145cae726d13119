"""What a shell needs so that the commands typed in it find the sandbox."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.errors import ConfigError

_FIRST_LINE = "# Points perfpower-exporter to the sandbox that wrote this.\n"
_BEGINNING = """\
# The key is made anew at each start and opens nothing but this sandbox.
# First, settings of your own that would get in the way are taken out of this shell:
for perfpower_name in $(awk 'BEGIN {
    for (name in ENVIRON) if (name ~ /^(ASC_|PERFPOWER_|OTEL_EXPORTER_OTLP_)[A-Za-z0-9_]*$/) print name
}'); do unset "$perfpower_name"; done
unset perfpower_name
"""


def script(environ: Mapping[str, str]) -> str:
    """Lines for a POSIX shell to source: they unset what the exporter reads, and export these variables."""
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in environ.items())
    return _FIRST_LINE + _BEGINNING + "".join(exports)


def directions(path: Path, build: str) -> str:
    """What to do with the file of the script, and two commands to begin with.

    Args:
        path: the file, as the user named it.
        build: a build that there is, as `APP:VERSION`.
    """
    app = build.partition(":")[0]
    file = path if path.is_absolute() else f"./{path}"
    return (
        "The sandbox is ready; Ctrl-C ends it. Its variables are for another terminal,\n"
        f"sourced by: . {shlex.quote(str(file))}\n\n"
        "There, for example:\n"
        f"  .venv/bin/perfpower-exporter metrics {app} --metric launchTime --device all_iphones\n"
        f"  .venv/bin/perfpower-exporter diagnostics {build} --type hangs --limit 1 --callstack"
    )


@contextmanager
def env_file(path: Path, text: str) -> Iterator[None]:
    """A file that holds the script while the sandbox runs: for its owner alone, whole or not at all.

    What a sandbox left behind is replaced, nothing else is. At the end the file is removed if it still is
    as it was written.

    Args:
        path: the file.
        text: as `script` gives it.

    Raises:
        ConfigError: the file cannot be written, or its name is taken.
    """
    content = text.encode()
    try:
        _refuse_what_is_not_ours(path)
        _write(path, content)
    except OSError as error:
        raise ConfigError(
            f"the variables cannot be written ({error.strerror})",
            where=str(path),
            remedy="Name a file in a folder that exists and that you may write to.",
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # a file that somebody took away or locked is no longer ours
            if _beginning(path, len(content) + 1) == content:
                path.unlink()


def _refuse_what_is_not_ours(path: Path) -> None:
    with suppress(FileNotFoundError):
        if _beginning(path, len(_FIRST_LINE)) not in (_FIRST_LINE.encode(), b""):
            raise ConfigError(
                "there is something here that no sandbox wrote; it was left alone",
                where=str(path),
                remedy="Name another file.",
            )


def _beginning(path: Path, size: int) -> bytes | None:
    """The first bytes of a file; None for what is no regular one: a folder, a link, a pipe, a device."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    with path.open("rb") as file:
        return file.read(size)


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
