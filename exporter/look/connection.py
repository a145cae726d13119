"""Asking App Store Connect by hand, within the key's share, and finding the app or build that is meant."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

import jwt

from exporter.appstore.auth import TokenAuth, load_private_key
from exporter.appstore.client import AppStoreClient
from exporter.appstore.discovery import newest_versions
from exporter.appstore.jsonapi import App, Build, printable
from exporter.appstore.payloads.reader import platform_name
from exporter.appstore.quota import Quota
from exporter.errors import AppStoreError, ConfigError, NotFound
from exporter.look.remedies import by_hand
from exporter.settings import Account, Settings
from exporter.state import recent_requests

_HOUR = 3600.0
_MOST_NAMED = 5
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_HOW_TO_NAME_A_BUILD = (
    "Give its id, APP:VERSION or APP:VERSION:BUILDNUMBER; `perfpower-exporter builds APP` lists them."
)


@dataclass(frozen=True)
class Connection:
    """One account to ask."""

    client: AppStoreClient
    account: Account
    settings: Settings

    def app(self, wanted: str) -> App:
        """The app with this Apple id, bundle id or name; upper and lower case do not matter.

        Raises:
            ConfigError: several apps have this name, or it is that of a build.
            NotFound: the key sees no such app; near misses are named.
        """
        if _UUID.fullmatch(wanted):
            raise _no_app(wanted, "APP")
        apps = self.client.apps()
        if not _named(wanted, apps) and (parts := _split(wanted, apps)) and _named(parts[0], apps):
            raise _no_app(wanted, printable(parts[0], 80))
        return self._app(wanted, apps)

    def build(self, wanted: str) -> str:
        """The id of the build that is meant by its id, `APP:VERSION` or `APP:VERSION:BUILDNUMBER`.

        Of several builds of a version it is the last uploaded one that was released, else the last uploaded.

        Raises:
            ConfigError: it names no build, or several.
            NotFound: there is no such app, version or build number; near misses are named.
        """
        if _UUID.fullmatch(wanted):
            return wanted
        return self._build(wanted, self.client.apps() if ":" in wanted else [])

    def app_or_build(self, wanted: str) -> App | str:
        """The app, or the id of the build, as for `app` and `build`."""
        if _UUID.fullmatch(wanted):
            return wanted
        apps = self.client.apps()
        if ":" in wanted and not _named(wanted, apps):
            return self._build(wanted, apps)
        return self._app(wanted, apps)

    @property
    def where(self) -> str:
        """What errors are about."""
        return f"account {self.account.name}"

    def _app(self, wanted: str, apps: Sequence[App]) -> App:
        found = _named(wanted, apps)
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(f"{app.id} ({app.bundle_id})" for app in found)
            what = f"{len(found)} apps are called {_quoted(wanted)}"
            raise ConfigError(what, remedy=f"Give the id of one: {ids}.", where=self.where)
        what = f"the key sees no app {_quoted(wanted)}"
        raise NotFound(what, remedy=_near_apps(wanted, apps), where=self.where)

    def _build(self, wanted: str, apps: Sequence[App]) -> str:
        parts = _split(wanted, apps)
        if not parts:
            raise ConfigError(f"{_quoted(wanted)} names no build", remedy=_HOW_TO_NAME_A_BUILD)
        name, version, *number = parts
        app = self._app(name, apps)

        def matches(build: Build) -> bool:
            return build.version == version and (not number or build.number == number[0])

        def enough(builds: Sequence[Build]) -> bool:
            return any(matches(build) and (number or build.released is not False) for build in builds)

        listed = self.client.builds(app.id, enough=enough)
        found = [build for build in listed if matches(build)]
        if not found:
            what = f"{_quoted(name)} has no build {_quoted(':'.join([version, *number]))}"
            raise NotFound(what, remedy=_near_builds(name, version, listed), where=self.where)
        return self._one(wanted, found).id

    def _one(self, wanted: str, found: Sequence[Build]) -> Build:
        best = newest_versions(found, versions=1, testflight=True) or list(found[:1])
        if len(best) > 1:
            ids = ", ".join(f"{build.id} ({platform_name(build.platform)})" for build in best)
            what = f"{_quoted(wanted)} is there for {len(best)} platforms"
            raise ConfigError(what, remedy=f"Give the id of one: {ids}.", where=self.where)
        return best[0]


@contextmanager
def connected(
    settings: Settings,
    account: str | None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Connection]:
    """A connection for one account. What the running exporter used of the key's share counts.

    Args:
        account: its name; None for the only one.
        clock: seconds since the epoch.
        sleep: waits for a number of seconds, between requests.

    Raises:
        ConfigError: there is no such account, several to choose from, or the key cannot be used.
        AppStoreError: what went wrong on the connection; its remedy is for someone who asked by hand.
    """
    chosen = _account(settings, account)
    used = recent_requests(settings.state.path, chosen.key_id, clock() - _HOUR)
    with AppStoreClient(
        base_url=chosen.base_url,
        auth=_auth(chosen, scoped=chosen.restrict_token, clock=clock),
        quota=Quota(settings.limits.key_share, used),
        where=f"account {chosen.name}",
        max_response_bytes=settings.limits.response_size,
        clock=clock,
        sleep=sleep,
    ) as client:
        try:
            yield Connection(client, chosen, settings)
        except AppStoreError as error:
            error.remedy = by_hand(error, settings.limits.key_share)
            raise


def bearer(
    settings: Settings, account: str | None, path: str, clock: Callable[[], float] = time.time
) -> tuple[str, float]:
    """A token for `Authorization: Bearer`, and for how many seconds it is good.

    Args:
        path: what it is restricted to, such as `/v1/apps`; a query may be part of it. Empty: no restriction.

    Raises:
        ConfigError: there is no such account, several to choose from, or the key cannot be used; the path is
            none, or there is none although the account has `restrict_token`.
    """
    chosen = _account(settings, account)
    if not path and chosen.restrict_token:
        raise ConfigError(
            "restrict_token is set, so a token is good for one path only",
            remedy="Say for which: --path /v1/apps",
            where=f"account {chosen.name}",
        )
    if path and (not path.startswith("/") or not path.isprintable() or " " in path):
        raise ConfigError(f"{_quoted(path)} is no path", remedy="Give it as in --path /v1/apps")
    token = _auth(chosen, scoped=bool(path), clock=clock).token(path)
    claims = jwt.decode(token, options={"verify_signature": False})
    return token, claims["exp"] - clock()


def _account(settings: Settings, name: str | None) -> Account:
    names = [account.name for account in settings.accounts]
    if name is None and len(names) > 1:
        what = f"the configuration has {len(names)} accounts"
        raise ConfigError(what, remedy=f"Choose one with --account: {', '.join(names)}.")
    if name is not None and name not in names:
        what = f"the configuration has no account {_quoted(name)}"
        raise ConfigError(what, remedy=f"It has: {', '.join(names)}.")
    return settings.accounts[0 if name is None else names.index(name)]


def _auth(account: Account, *, scoped: bool, clock: Callable[[], float]) -> TokenAuth:
    return TokenAuth(
        key_id=account.key_id,
        issuer_id=account.issuer_id,
        private_key=load_private_key(account.private_key_text(), f"account {account.name}"),
        scoped=scoped,
        clock=clock,
    )


def _named(wanted: str, apps: Sequence[App]) -> list[App]:
    """The app with this id or bundle id, else all that have this name."""
    folded = wanted.strip().casefold()
    exact = [app for app in apps if folded and folded in (app.id.casefold(), app.bundle_id.casefold())]
    return exact[:1] or [app for app in apps if folded and folded == app.name.casefold()]


def _near_apps(wanted: str, apps: Sequence[App]) -> str:
    known = {word.casefold(): word for app in apps for word in (app.id, app.bundle_id, app.name) if word}
    folded = wanted.strip().casefold()
    near = get_close_matches(folded, known, n=_MOST_NAMED, cutoff=0.5)
    near += [word for word in known if folded and folded in word and word not in near]
    if near:
        return f"Did you mean {' or '.join(known[word] for word in near[:_MOST_NAMED])}?"
    ids = [app.bundle_id or app.id for app in apps]
    return f"It sees {_first(ids, len(ids))}." if ids else "It sees no app at all."


def _split(wanted: str, apps: Sequence[App]) -> list[str]:
    """Name of the app, version and perhaps build number; empty if these are not what it is made of.

    A name of an app may have colons of its own: the last one or two are tried for ours.
    """
    splits = [wanted.rsplit(":", colons) for colons in (1, 2) if wanted.count(":") >= colons]
    if not splits or not all(splits[0]):
        return []
    return next((parts for parts in splits if _named(parts[0], apps)), splits[0])


def _no_app(wanted: str, app: str) -> ConfigError:
    remedy = f"Give the app alone: {app}. `metrics` and `diagnostics` know builds."
    return ConfigError(f"{_quoted(wanted)} is a build, and here an app is needed", remedy=remedy)


def _near_builds(name: str, version: str, listed: Sequence[Build]) -> str:
    """What there is instead of a version that the app does not have, or that has other build numbers."""
    numbers = [build.number for build in listed if build.version == version]
    if numbers:
        return f"Version {version} has the build numbers {_first(numbers, len(numbers))}."
    meant = next((build for build in listed if version and build.number == version), None)
    if meant:
        app = printable(name, 80)
        return f"{version} is a build of {meant.version}: give {app}:{meant.version}:{version}."
    versions = list(dict.fromkeys(build.version for build in listed if build.version))
    close = get_close_matches(version, versions, n=_MOST_NAMED)
    near = [known for known in versions if known in close] or versions
    return f"It has {_first(near, len(versions))}." if near else "It has no builds at all."


def _first(names: Sequence[str], there_are: int) -> str:
    """The first few, and how many there are if that is not all."""
    shown = names[:_MOST_NAMED]
    return ", ".join(shown) + (f" … ({there_are} in all)" if there_are > len(shown) else "")


def _quoted(text: str) -> str:
    return f"“{printable(text, 80)}”"
