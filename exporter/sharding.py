"""Which of the configured accounts an exporter polls, where several share them: `--shard i/n`.

Nothing is shared but the configuration: each exporter works out its own accounts, and has its own state file.

Accounts with the same key stay together. The key's hour is one budget, and what was used of it stands in the
state file; two exporters would each take the whole share. They go by the name that comes first among them,
not by the key, so that a renewed key moves nothing: what is stored goes by the name too.

The shard is the one with the highest digest of name and index (rendezvous hashing). The n-th shard, when it
comes, takes about one account in n; no account moves between the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from exporter.settings import Account

    Accounts = tuple[Account, ...]

_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)
_HARMLESS = re.compile(r"[0-9/ .-]{1,20}", re.ASCII)  # cannot be a secret that went astray


@dataclass(frozen=True, slots=True)
class Shard:
    """The share of exporter number `index`, counted from 0, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse(text: str, where: str) -> Shard:
    """`2/3` → the last of three shards.

    Args:
        where: which option or variable the text is from.

    Raises:
        ConfigError: the text is no shard, or one that does not exist, such as 3/3.
    """
    match = _SHARD.fullmatch(text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if index < count:
        return Shard(index, count)
    said = f" (it is {text!r})" if _HARMLESS.fullmatch(text) else ""
    raise ConfigError(
        f"must be i/n, with i from 0 to n-1{said}",
        where=where,
        remedy="Of three exporters: 0/3, 1/3 and 2/3.",
    )


def divide(accounts: Sequence[Account], shard: Shard) -> tuple[Accounts, Accounts]:
    """The accounts of this shard, and those of the others; each in the order of the configuration."""
    first: dict[str, str] = {}
    for account in accounts:
        first[account.key_id] = min(account.name, first.get(account.key_id, account.name))
    ours = {key_id for key_id, name in first.items() if _index(name, shard.count) == shard.index}
    return (
        tuple(account for account in accounts if account.key_id in ours),
        tuple(account for account in accounts if account.key_id not in ours),
    )


def _index(name: str, count: int) -> int:
    return max(range(count), key=lambda index: hashlib.sha256(f"{index} {name}".encode()).digest())
