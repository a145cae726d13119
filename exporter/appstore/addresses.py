"""Where the bearer token may be sent: the configured address, and the next pages below it."""

from __future__ import annotations

import re

import httpx

from exporter.appstore.jsonapi import printable
from exporter.errors import BadAnswer
from exporter.loopback import is_loopback

__all__ = ["base_url", "following", "shown"]

_NOT_IN_A_BASE = re.compile(r"[\s\\@?#]")


def base_url(text: str) -> str:
    """Return the address of App Store Connect normalised and without a trailing slash.

    Raises:
        ValueError: it is not https, nor plain http to this machine itself; or it has a user name, a query
            or a fragment. The message is the rest of a sentence that begins with the setting's name, and
            repeats nothing of the text, which may hold a secret.
    """
    try:
        parsed = httpx.URL(str(httpx.URL(text)))  # twice: the port 443 of “HTTPS” goes only the second time
    except (httpx.InvalidURL, TypeError):
        raise ValueError("must be a URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("must be an https URL")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ValueError("must have a port from 1 to 65535")
    if _NOT_IN_A_BASE.search(text):
        raise ValueError("must not have a user name, a query, a fragment or a space")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise ValueError(
            "must be an https URL: a bearer token is sent there, and plain http is safe only to this machine "
            "itself (localhost, 127.0.0.1, [::1])"
        )
    return str(parsed).rstrip("/")


def following(base: httpx.URL, url: httpx.URL, link: str) -> httpx.URL:
    """Return the URL that `link` on the page at `url` leads to.

    Raises:
        BadAnswer: it is no URL, or leads to another host or out of the path of `base`.
    """
    try:
        target = url.join(link)
    except httpx.InvalidURL:
        remedy = "Check base_url and any proxy in between."
        raise BadAnswer("links.next is not a URL", remedy=remedy) from None
    if _origin(target) != _origin(base) or target.userinfo:
        raise BadAnswer(
            f"links.next leads to another host: {shown(target)}; nothing was sent there",
            remedy=f"The token is sent to {shown(base)} only. If that is a proxy, let it rewrite the links, "
            "or set base_url to App Store Connect itself.",
        )
    steps = target.path.replace("\\", "/").split("/")
    if not target.path.startswith(f"{base.path.rstrip('/')}/") or ".." in steps:
        raise BadAnswer(
            f"links.next leads out of base_url's path on {shown(target)}; nothing was sent there",
            remedy="Check base_url, and whether the proxy there rewrites links.",
        )
    return target


def shown(url: httpx.URL) -> str:
    """Return scheme, host and port, fit for an error: without what may be secret in a URL."""
    return printable(f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}", 200)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
