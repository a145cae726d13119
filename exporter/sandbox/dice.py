"""Chance that can be repeated: the same words give the same bytes. Pure."""

from __future__ import annotations

from hashlib import blake2b


def dice(*words: object, size: int = 64) -> bytes:
    """Up to 64 bytes by chance that belong to these words."""
    return blake2b("/".join(map(str, words)).encode(), digest_size=size).digest()


def number(some: bytes) -> int:
    """Bytes as a number, to be cut down with `%`."""
    return int.from_bytes(some, "big")
