"""`make collector`: the Collector of builder.yaml, built through the Go module proxy and kept in the cache.

The builder only writes the sources. Its own last step, `go mod tidy`, asks for modules that nothing but tests
of dependencies import, and the proxy does not hold all of those; the go.mod and go.sum beside this file take
its place, so each build is of the same modules.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.collector.binary import RECIPE, VERSION, built_path

_BUILDER = f"go.opentelemetry.io/collector/cmd/builder@v{VERSION}"


def main() -> int:
    """Build it unless it is there, and print where it is; a sentence and exit status 1 when that fails."""
    target = built_path(os.environ)
    if not target.exists():
        if not shutil.which("go"):
            print(
                "The Collector is built with Go, and there is no go on the PATH: install Go 1.25 or newer, "
                f"or set PERFPOWER_OTELCOL to an otelcol-contrib {VERSION}.",
                file=sys.stderr,
            )
            return 1
        print(f"building the Collector {VERSION}: some minutes, the first time", flush=True)
        try:
            _build(target)
        except subprocess.CalledProcessError as error:
            print(
                f"The Collector could not be built: `{' '.join(error.cmd)}` failed, see above. "
                "Can this machine reach the Go module proxy?",
                file=sys.stderr,
            )
            return 1
    print(target)
    return 0


def _build(target: Path) -> None:
    """Build in a folder beside the target, so that a build cut short leaves nothing that looks like one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        shutil.copy(RECIPE / "builder.yaml", folder)
        generate = [
            "go",
            "run",
            _BUILDER,
            "--config=builder.yaml",
            "--skip-get-modules",
            "--skip-compilation",
        ]
        subprocess.run(generate, cwd=folder, env=environment, check=True)
        sources = Path(folder, "build")
        for name in ("go.mod", "go.sum"):
            shutil.copy(RECIPE / name, sources)
        # -mod=mod: another system may need a few modules more than the one that go.sum was written on.
        build = [
            "go",
            "build",
            "-mod=mod",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags=-s -w",
            f"-o={target.name}",
            ".",
        ]
        subprocess.run(build, cwd=sources, env=environment, check=True)
        (sources / target.name).replace(target)


if __name__ == "__main__":
    sys.exit(main())
