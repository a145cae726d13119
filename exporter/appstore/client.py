"""The client of App Store Connect: one GET at a time, with pages, retries and a budget."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import httpx

from exporter import __version__
from exporter.appstore import addresses
from exporter.appstore.auth import API_PATH, TokenAuth
from exporter.appstore.jsonapi import App, Build, is_safe_id, next_link, parse_apps, parse_builds, printable
from exporter.appstore.quota import Quota
from exporter.appstore.reading import NOT_APPLE, Answer, Deadline, Received, parse, read_body, read_error_body
from exporter.appstore.refusals import Failure, lost, passing, refusal
from exporter.appstore.waiting import Waits
from exporter.errors import AppStoreError, BadAnswer, ConfigError

__all__ = ["Answer", "AppStoreClient", "Sent"]

Endpoint = Literal["apps", "builds", "app_metrics", "build_metrics", "signatures", "logs", "overview"]

_METRICS_OF: dict[str, tuple[str, Endpoint]] = {
    "apps": ("app", "app_metrics"),
    "builds": ("build", "build_metrics"),
}
_JSON = "application/json"
_JSON_API = "application/vnd.api+json"
_METRICS = "application/vnd.apple.xcode-metrics+json"
_LOGS = "application/vnd.apple.diagnostic-logs+json"
_OVERVIEW = "application/vnd.apple.xcode-overview+json"
_PAGE = 200  # Apple's largest `limit`
_MOST_PAGES = 100
_MOST_BUILD_PAGES = 10  # two thousand builds: a team that uploads every night needs five years for them
_FILTER_VALUES = 40  # bundle ids are up to 155 characters: forty keep the URL below 8 KiB


@dataclass(frozen=True)
class Sent:
    """One HTTP attempt: `status` is None when no complete answer came, `seconds` lasts to its end."""

    endpoint: str
    status: int | None
    seconds: float


@dataclass(frozen=True)
class _Call:
    """One thing to ask for, over all its attempts."""

    endpoint: Endpoint
    url: httpx.URL
    types: tuple[str, ...]
    deadline: Deadline


class AppStoreClient:
    """Asks App Store Connect with one API key; safe to share between threads.

    Each attempt is paced by and counted in the quota, and told to `observe`: so is the second one after a
    401. For that reason this client walks through `auth.auth_flow` itself; httpx would send the second
    attempt unseen, and would read the body of the first without a limit.

    429, 5xx, connection errors and answers that are cut off are repeated, with 1, 2, 4 and 8 seconds in
    between (less a random part) or as long as `Retry-After` says: at most five attempts, plus one if a
    token was refused. Redirects are not followed, and the token goes to the host of base_url only.

    Args:
        base_url: see `addresses.base_url`; a path prefix is allowed. An https one is reached through the
            proxy that the environment names, if any.
        auth: signs the requests.
        quota: shared by all clients of the same key.
        where: heads every error, such as "account main".
        max_response_bytes: the largest answer, after decompression.
        observe: told each attempt, also a failed one.
        timeout: seconds without a byte after which an attempt has failed.
        give_up_after: seconds for one request with its repetitions, waits and answer.
        clock: seconds since the epoch.
        sleep: waits for a number of seconds.
        random: a number from 0 up to 1.
        monotonic: seconds for the deadline and durations, so that a clock that is set moves neither.

    Raises:
        ConfigError: base_url is not allowed.
        OverBudget: from each method, when our share of the key's hour is used up.
        AppStoreError: from each method, its subclass says what happened.
    """

    def __init__(
        self,
        *,
        base_url: str,
        auth: TokenAuth,
        quota: Quota,
        where: str,
        max_response_bytes: int,
        observe: Callable[[Sent], None] = lambda _sent: None,
        timeout: float = 30.0,
        give_up_after: float = 120.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = _checked_base(base_url, where)
        self._prefix = self._base.path.rstrip("/")
        self._auth = auth
        self._quota = quota
        self._where = where
        self._max_response_bytes = max_response_bytes
        self._observe = observe
        self._timeout = timeout
        self._give_up_after = give_up_after
        self._clock = clock
        self._monotonic = monotonic
        self._waits = Waits(quota, clock, sleep, random)
        self._http = httpx.Client(
            follow_redirects=False,
            trust_env=self._base.scheme == "https",  # a proxy would take plain http off this machine
            headers={"User-Agent": f"perfpower-exporter/{__version__}", "Accept-Encoding": "gzip"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def apps(self, *, ids: Sequence[str] = (), bundle_ids: Sequence[str] = ()) -> list[App]:
        """Return the apps with one of these ids or one of these bundle ids, each once; all if none is given.

        An app that the key cannot see is missing from the result.
        """
        queries: list[dict[str, str]] = [
            {f"filter[{name}]": ",".join(part)}
            for name, values in (("id", ids), ("bundleId", bundle_ids))
            for part in _parts(values)
        ]
        found: dict[str, App] = {}
        for query in queries or [{}]:
            query |= {"fields[apps]": "bundleId,name", "limit": str(_PAGE)}
            with _heading(self._where):
                for page in self._pages("apps", "/v1/apps", query):
                    found |= {app.id: app for app in parse_apps(page.document)}
        return list(found.values())

    def builds(self, app_id: str, *, enough: Callable[[Sequence[Build]], bool]) -> list[Build]:
        """Return the valid builds of an app, the last uploaded first and each once, with `released`.

        Expired ones are among them: they are what the users of a released version have. Pages are read until
        `enough`, told all builds so far after each page, says so, and ten at most.
        """
        self._check(app_id)
        query = {
            "filter[app]": app_id,
            "filter[processingState]": "VALID",
            "include": "preReleaseVersion,appStoreVersion",
            "fields[builds]": "version,uploadedDate,expired,preReleaseVersion,appStoreVersion",
            "fields[preReleaseVersions]": "version,platform",
            "fields[appStoreVersions]": "appVersionState,appStoreState",
            "sort": "-uploadedDate",
            "limit": str(_PAGE),
        }
        found: dict[str, Build] = {}
        with _heading(f"{self._where}, app {app_id}"):
            for page in itertools.islice(self._pages("builds", "/v1/builds", query), _MOST_BUILD_PAGES):
                found |= {build.id: build for build in parse_builds(page.document)}
                if enough(tuple(found.values())):
                    break
        return list(found.values())

    def metrics(self, kind: Literal["apps", "builds"], resource_id: str) -> Answer:
        """Return the `xcodeMetrics` of an app or of a build, as they came."""
        self._check(resource_id)
        noun, endpoint = _METRICS_OF[kind]
        url = self._url(f"/v1/{kind}/{resource_id}/perfPowerMetrics")
        with _heading(f"{self._where}, {noun} {resource_id}"):
            return self._get(endpoint, url, (_METRICS, _JSON))

    def overview(self, app_id: str) -> Answer:
        """Return the `xcodeOverview` of an app, as it came.

        Raises:
            NotFound, NotOffered: the account has no such endpoint.
        """
        self._check(app_id)
        with _heading(f"{self._where}, app {app_id}"):
            url = self._url(f"/v1/apps/{app_id}/performanceOverviews")
            return self._get("overview", url, (_OVERVIEW, _JSON))

    def signatures(self, build_id: str) -> list[Answer]:
        """Return all pages of a build's diagnostic signatures, as they came.

        Raises:
            NotFound: the build has none, or there is no such build.
        """
        self._check(build_id)
        query = {
            "fields[diagnosticSignatures]": "diagnosticType,signature,weight,insight",
            "limit": str(_PAGE),
        }
        with _heading(f"{self._where}, build {build_id}"):
            return list(self._pages("signatures", f"/v1/builds/{build_id}/diagnosticSignatures", query))

    def logs(self, signature_id: str) -> Answer:
        """Return the `diagnosticLogs` of a signature, as they came, up to 200 logs."""
        with _heading(f"{self._where}, signature {printable(signature_id, 80)}"):
            if not is_safe_id(signature_id):  # it comes from an answer, not from the configuration
                raise BadAnswer("this id cannot be part of an address; nothing was sent", remedy=NOT_APPLE)
            url = self._url(f"/v1/diagnosticSignatures/{signature_id}/logs", {"limit": str(_PAGE)})
            return self._get("logs", url, (_LOGS, _JSON))

    def _check(self, resource_id: str) -> None:
        if not is_safe_id(resource_id):
            raise ConfigError(
                f"{printable(str(resource_id), 80)!r} is not an id of App Store Connect",
                remedy="An app's id is its Apple ID: digits, to be found under App Information.",
                where=self._where,
            )

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> httpx.URL:
        return self._base.copy_with(path=self._prefix + path, params=query)

    # Pages

    def _pages(self, endpoint: Endpoint, path: str, query: Mapping[str, str]) -> Iterator[Answer]:
        """Yield each page."""
        url = self._url(path, query)
        asked: set[httpx.URL] = set()
        while url not in asked and len(asked) < _MOST_PAGES:
            asked.add(url)
            page = self._get(endpoint, url, (_JSON, _JSON_API))
            if not isinstance(page.document.get("data"), list):
                raise BadAnswer("the answer has no list of data", remedy=NOT_APPLE)
            yield page
            link = next_link(page.document)
            if link is None:
                return
            url = addresses.following(self._base, url, link)
        raise BadAnswer(f"the pages do not end: stopped after {len(asked)}", remedy=NOT_APPLE)

    # One call: its attempts

    def _get(self, endpoint: Endpoint, url: httpx.URL, types: tuple[str, ...]) -> Answer:
        """Return the answer to a GET, which has the status 200 and holds a JSON object."""
        call = _Call(endpoint, url, types, Deadline(self._give_up_after, self._monotonic))
        flow = self._auth.auth_flow(self._request(call))
        request, failures = next(flow), 0
        while True:
            outcome = self._outcome(call, request)
            if isinstance(outcome, Answer):
                return outcome
            if isinstance(outcome, Failure):
                failures += 1
                self._waits.after(outcome, failures, call.deadline)
                continue
            try:
                request = flow.send(outcome.response)
            except StopIteration:
                raise refusal(outcome, self._auth) from None

    def _request(self, call: _Call) -> httpx.Request:
        path = call.url.path.removeprefix(self._prefix)
        return self._http.build_request(
            "GET", call.url, headers={"Accept": ", ".join(call.types)}, extensions={API_PATH: path}
        )

    def _outcome(self, call: _Call, request: httpx.Request) -> Answer | Failure | Received:
        """Wait for our turn and send once: the answer, a failure that may pass, or what was refused."""
        self._waits.for_turn(call.deadline)
        try:
            received = self._attempt(call, request)
            if received.response.status_code == httpx.codes.OK:
                return parse(received, call.types)
        except httpx.TransportError as error:
            return lost(error)
        return passing(received) or received

    def _attempt(self, call: _Call, request: httpx.Request) -> Received:
        """Send once, read the body, and tell quota and observer."""
        limit = max(0.001, min(self._timeout, call.deadline.left()))
        request.extensions = {**request.extensions, "timeout": httpx.Timeout(limit).as_dict()}
        started, status = self._monotonic(), None
        try:
            with closing(self._http.send(request, stream=True)) as response:
                status = response.status_code
                self._quota.saw(response.headers.get("X-Rate-Limit"), self._clock())
                return Received(response, self._read(call, response), self._clock())
        except httpx.TransportError:
            status = None
            raise
        finally:
            self._observe(Sent(call.endpoint, status, self._monotonic() - started))

    def _read(self, call: _Call, response: httpx.Response) -> bytes:
        if response.status_code == httpx.codes.OK:
            return read_body(response, self._max_response_bytes, call.deadline)
        return read_error_body(response, call.deadline)


def _checked_base(url: str, where: str) -> httpx.URL:
    try:
        return httpx.URL(addresses.base_url(url))
    except ValueError as error:
        raise ConfigError(
            f"base_url {error}",
            remedy="Give an https URL such as https://api.appstoreconnect.apple.com, with a path if a proxy "
            "needs one.",
            where=where,
        ) from None


@contextmanager
def _heading(where: str) -> Iterator[None]:
    """Let every error say which account, app or build it is about."""
    try:
        yield
    except AppStoreError as error:
        error.where = where
        raise


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    """Yield the distinct values, as many at a time as fit into one filter."""
    distinct = iter(dict.fromkeys(values))
    while part := list(itertools.islice(distinct, _FILTER_VALUES)):
        yield part
