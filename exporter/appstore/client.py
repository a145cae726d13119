"""The client of App Store Connect: one GET at a time, with pages, retries, a budget and a size limit."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, NoReturn, Self

import httpx

from exporter import __version__
from exporter.appstore.auth import API_PATH, TokenAuth
from exporter.appstore.jsonapi import (
    App,
    Build,
    error_summary,
    is_safe_id,
    next_link,
    parse_apps,
    parse_builds,
    printable,
)
from exporter.appstore.quota import Quota
from exporter.errors import (
    AgreementMissing,
    AppStoreError,
    BadAnswer,
    ConfigError,
    CredentialsRefused,
    NotFound,
    OverBudget,
    RateLimited,
    RoleTooSmall,
    Unavailable,
)
from exporter.retry_after import http_date, retry_after

__all__ = ["Answer", "AppStoreClient", "Sent", "check_base_url"]

Endpoint = Literal["apps", "builds", "app_metrics", "build_metrics"]

_JSON = "application/json"
_JSON_API = "application/vnd.api+json"
_METRICS = "application/vnd.apple.xcode-metrics+json"
_PAGE = 200  # Apple's largest `limit`
_MOST_PAGES = 100
_FILTER_VALUES = 40  # bundle ids are up to 155 characters: forty keep the URL below 8 KiB
_MOST_ATTEMPTS = 5
_LONGEST_HOLD = 3600.0  # the rate limit is a rolling hour, so nothing can last longer
_LONGEST_RETRY = 1e9  # seconds: keeps a hostile date within what a date can hold
_CLOCK_OFF = 60.0  # seconds: below this a clock does not explain a 401
_ERROR_BODY = 64 * 1024
_PIECE = 64 * 1024
_AGREEMENT = "FORBIDDEN.REQUIRED_AGREEMENTS_MISSING_OR_EXPIRED"


@dataclass(frozen=True)
class Answer:
    """The body of a 200, which is a JSON object, and when it had arrived (seconds since the epoch)."""

    body: bytes
    received_at: float


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
    where: str
    url: httpx.URL
    types: tuple[str, ...]
    deadline: float  # of the monotonic clock


@dataclass(frozen=True)
class _Reply:
    response: httpx.Response
    body: bytes
    received_at: float
    document: Mapping[str, object]  # empty unless the status is 200


@dataclass(frozen=True)
class _Failure:
    """An attempt that is worth repeating, and the error it becomes when repeating did not help."""

    what: str
    kind: type[RateLimited | Unavailable]
    retry_after: float | None = None


class _CutOffError(Exception):
    """The answer ended before its end."""


class _TooLargeError(Exception):
    """The answer is larger than allowed."""


class _TooLateError(Exception):
    """The time for the call was over before the answer was."""


def check_base_url(url: str) -> str:
    """Return the URL normalised and without a trailing slash.

    Raises:
        ConfigError: it is not https, nor plain http to this machine itself; or it has a user name, a
            query or a fragment. Only scheme and host are repeated, since the rest may hold a secret.
    """
    try:
        parsed = httpx.URL(str(httpx.URL(url)))  # twice: the port 443 of “HTTPS” goes only the second time
    except (httpx.InvalidURL, TypeError):
        raise _base_url_error("base_url is not a URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise _base_url_error("base_url is not an https URL")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise _base_url_error(f"base_url has the port {parsed.port}, which there cannot be")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        raise _base_url_error(f"base_url uses plain http to {printable(parsed.host, 100)}")
    if parsed.userinfo or parsed.query or parsed.fragment or set("@?#") & set(url):
        raise _base_url_error("base_url has a user name, a query or a fragment")
    return str(parsed).rstrip("/")


class AppStoreClient:
    """Asks App Store Connect with one API key; safe to share between threads.

    Each attempt is paced by and counted in the quota, and told to `observe`: so is the second one after a
    401. For that reason this client walks through `auth.auth_flow` itself; httpx would send the second
    attempt unseen, and would read the body of the first without a limit.

    429, 5xx, connection errors and answers that are cut off are repeated, with 1, 2, 4 and 8 seconds in
    between (less a random part) or as long as `Retry-After` says: at most five attempts, plus one if a
    token was refused. Redirects are not followed, and the token goes to the host of base_url only.

    Args:
        base_url: see `check_base_url`; a path prefix is allowed. An https one is reached through the proxy
            that the environment names, if any.
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
        self._base = httpx.URL(check_base_url(base_url))
        self._prefix = self._base.path.rstrip("/")
        self._auth = auth
        self._quota = quota
        self._where = where
        self._max_response_bytes = max_response_bytes
        self._observe = observe
        self._timeout = timeout
        self._give_up_after = give_up_after
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._monotonic = monotonic
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
            for document in self._pages("apps", self._where, "/v1/apps", query):
                found |= {app.id: app for app in parse_apps(document)}
        return list(found.values())

    def builds(self, app_id: str, *, newest: int) -> list[Build]:
        """Return up to `newest` valid, unexpired builds of an app, the last uploaded first."""
        where = f"{self._where}, app {self._checked(app_id)}"
        query = {
            "filter[app]": app_id,
            "filter[processingState]": "VALID",
            "filter[expired]": "false",
            "include": "preReleaseVersion",
            "sort": "-uploadedDate",
            "limit": str(min(newest, _PAGE)),
        }
        found: dict[str, Build] = {}
        for document in self._pages("builds", where, "/v1/builds", query) if newest > 0 else ():
            found |= {build.id: build for build in parse_builds(document)}
            if len(found) >= newest:
                break
        return list(itertools.islice(found.values(), max(0, newest)))

    def metrics(self, kind: Literal["apps", "builds"], resource_id: str) -> Answer:
        """Return the `xcodeMetrics` of an app or of a build, as they came."""
        noun, endpoint = _METRICS_OF[kind]
        where = f"{self._where}, {noun} {self._checked(resource_id)}"
        url = self._url(f"/v1/{kind}/{resource_id}/perfPowerMetrics")
        reply = self._get(endpoint, where, url, (_METRICS, _JSON))
        return Answer(reply.body, reply.received_at)

    def _checked(self, resource_id: str) -> str:
        if not is_safe_id(resource_id):
            raise ConfigError(
                f"{printable(str(resource_id), 80)!r} is not an id of App Store Connect",
                remedy="An app's id is its Apple ID: digits, to be found under App Information.",
                where=self._where,
            )
        return resource_id

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> httpx.URL:
        return self._base.copy_with(path=self._prefix + path, params=query)

    # Pages

    def _pages(
        self, endpoint: Endpoint, where: str, path: str, query: Mapping[str, str]
    ) -> Iterator[Mapping[str, object]]:
        """Yield the document of each page."""
        url: httpx.URL | None = self._url(path, query)
        seen: set[httpx.URL] = set()
        while url is not None:
            if url in seen or len(seen) >= _MOST_PAGES:
                raise _endless(where, len(seen))
            seen.add(url)
            document = self._get(endpoint, where, url, (_JSON, _JSON_API)).document
            if not isinstance(document.get("data"), list):
                raise BadAnswer("the answer has no list of data", remedy=_NOT_APPLE, where=where)
            yield document
            url = self._following(url, document, where)

    def _following(self, url: httpx.URL, document: Mapping[str, object], where: str) -> httpx.URL | None:
        """Return the next page's URL after making sure that it may be sent the token."""
        link = next_link(document)
        if link is None:
            return None
        try:
            following = url.join(link)
        except httpx.InvalidURL:
            raise BadAnswer("links.next is not a URL", remedy=_NOT_APPLE, where=where) from None
        if _origin(following) != _origin(self._base) or following.userinfo:
            raise BadAnswer(
                f"links.next leads to another host: {_address(following)}; nothing was sent there",
                remedy=f"The token is sent to {_address(self._base)} only. If that is a proxy, "
                "let it rewrite the links, or set base_url to App Store Connect itself.",
                where=where,
            )
        steps = following.path.replace("\\", "/").split("/")
        if not following.path.startswith(f"{self._prefix}/") or ".." in steps:
            raise BadAnswer(
                f"links.next leads out of base_url's path on {_address(following)}; nothing was sent there",
                remedy="Check base_url, and whether the proxy there rewrites links.",
                where=where,
            )
        return following

    # One call: its attempts

    def _get(self, endpoint: Endpoint, where: str, url: httpx.URL, types: tuple[str, ...]) -> _Reply:
        """Return the answer to a GET, which has the status 200 and holds a JSON object."""
        call = _Call(endpoint, where, url, types, self._monotonic() + self._give_up_after)
        flow = self._auth.auth_flow(self._request(call))
        request, failures = next(flow), 0
        while True:
            outcome = self._attempt(call, request)
            if isinstance(outcome, _Failure):
                failures += 1
                self._back_off(call, outcome, failures)
                continue
            try:
                request = flow.send(outcome.response)
            except StopIteration:
                break
        if outcome.response.status_code != httpx.codes.OK:
            raise self._refusal(call, outcome)
        return outcome

    def _request(self, call: _Call) -> httpx.Request:
        path = call.url.path.removeprefix(self._prefix)
        return self._http.build_request(
            "GET", call.url, headers={"Accept": ", ".join(call.types)}, extensions={API_PATH: path}
        )

    def _attempt(self, call: _Call, request: httpx.Request) -> _Reply | _Failure:
        """Wait for our turn, send once, and read the answer."""
        self._wait_for_turn(call)
        limit = max(0.001, min(self._timeout, self._left(call)))
        request.extensions = {**request.extensions, "timeout": httpx.Timeout(limit).as_dict()}
        started, status = self._monotonic(), None
        try:
            with closing(self._http.send(request, stream=True)) as response:
                status = response.status_code
                self._quota.saw(response.headers.get("X-Rate-Limit"), self._clock())
                return self._read(call, response)
        except (httpx.TransportError, _CutOffError, _TooLateError) as error:
            status = None
            return _Failure(_transport_failure(error), Unavailable)
        finally:
            self._observe(Sent(call.endpoint, status, self._monotonic() - started))

    def _wait_for_turn(self, call: _Call) -> None:
        """Take one request out of the quota, and sleep until it may be sent."""
        self._refuse_longer(call, self._quota.held(self._clock()))
        try:
            delay = self._quota.take(self._clock())
        except OverBudget as error:
            raise OverBudget(error.what, remedy=error.remedy, where=call.where) from None
        self._pause(call, delay)
        # An answer to somebody else's request may have brought a hold meanwhile.
        self._pause(call, self._quota.held(self._clock()))

    def _pause(self, call: _Call, delay: float) -> None:
        self._refuse_longer(call, delay)
        if delay > 0:
            self._sleep(delay)

    def _refuse_longer(self, call: _Call, delay: float) -> None:
        if delay > max(0.0, self._left(call)):
            raise RateLimited(
                "the key has to wait for its rate limit",
                remedy=f"{self._until(delay)} Nothing was sent; the next poll asks again.",
                where=call.where,
            )

    def _back_off(self, call: _Call, failure: _Failure, failures: int) -> None:
        """Sleep before the next attempt, or raise when there is to be none."""
        delay = failure.retry_after or 2.0 ** (failures - 1) * (1 - self._random() / 2)
        if failure.kind is RateLimited:
            self._quota.hold(self._clock() + min(delay, _LONGEST_HOLD))
        if failures >= _MOST_ATTEMPTS:
            _give_up(call, failure, f"Tried {failures} times; the next poll asks again.")
        if delay > self._left(call):
            over = (
                f"One request may take {self._give_up_after:g} s with its repetitions, which leaves no time."
            )
            asked = self._until(delay) if failure.retry_after else over
            _give_up(call, failure, f"{asked} The next poll asks again.")
        self._sleep(delay)

    def _left(self, call: _Call) -> float:
        return call.deadline - self._monotonic()

    def _until(self, delay: float) -> str:
        until = datetime.fromtimestamp(self._clock() + delay, UTC)
        return f"It asks to wait until {until:%Y-%m-%d %H:%M:%S} UTC ({delay:.0f} s)."

    # One attempt: its answer

    def _read(self, call: _Call, response: httpx.Response) -> _Reply | _Failure:
        status = response.status_code
        if status == httpx.codes.OK:
            return self._read_document(call, response)
        body = self._read_error(call, response)
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            kind = RateLimited if status == httpx.codes.TOO_MANY_REQUESTS else Unavailable
            wait = retry_after(response.headers, self._clock())
            longest = None if wait is None else min(wait, _LONGEST_RETRY)
            return _Failure(f"App Store Connect answered {_described(status, body)}", kind, longest)
        return _Reply(response, body, self._clock(), {})

    def _read_document(self, call: _Call, response: httpx.Response) -> _Reply | _Failure:
        body = bytearray()
        try:
            self._collect(call, response, body, self._max_response_bytes)
        except _TooLargeError:
            raise BadAnswer(
                f"the answer is larger than {self._max_response_bytes} bytes",
                remedy="Raise max_response_bytes if it is genuine.",
                where=call.where,
            ) from None
        received_at = self._clock()
        document = _document(call, response, bytes(body))
        if document is None:
            return _Failure("the answer ends in the middle of its JSON", Unavailable)
        return _Reply(response, bytes(body), received_at, document)

    def _read_error(self, call: _Call, response: httpx.Response) -> bytes:
        """Return what can be had of an error's body: the status alone says enough to go on."""
        body = bytearray()
        with suppress(httpx.TransportError, _CutOffError, _TooLargeError, _TooLateError, BadAnswer):
            self._collect(call, response, body, _ERROR_BODY)
        return bytes(body[:_ERROR_BODY])

    def _collect(self, call: _Call, response: httpx.Response, body: bytearray, limit: int) -> None:
        """Append the decompressed body piece by piece, looking at size and time after each."""
        for piece in _pieces(call, response):
            body += piece
            if len(body) > limit or response.num_bytes_downloaded > limit + _PIECE:
                raise _TooLargeError
            if self._left(call) < 0:
                raise _TooLateError(f"not at its end after {self._give_up_after:g} s")

    # What is not a 200

    def _refusal(self, call: _Call, reply: _Reply) -> AppStoreError:
        """Return the error for an answer that repeating will not change."""
        status = reply.response.status_code
        code, _ = error_summary(reply.body)
        what = f"App Store Connect answered {_described(status, reply.body)}"
        if 300 <= status < 400:
            return _redirected(call, reply.response, self._base)
        if status == httpx.codes.UNAUTHORIZED:
            return CredentialsRefused(what, remedy=self._check_credentials(reply), where=call.where)
        if status == httpx.codes.FORBIDDEN and code == _AGREEMENT:
            return AgreementMissing(what, remedy=_ACCEPT_AGREEMENT, where=call.where)
        if status == httpx.codes.FORBIDDEN:
            return RoleTooSmall(what, remedy=_LARGER_ROLE, where=call.where)
        if status == httpx.codes.NOT_FOUND:
            return NotFound(what, remedy=_NOT_VISIBLE, where=call.where)
        if status == httpx.codes.NOT_ACCEPTABLE:
            remedy = f"It offers none of: {', '.join(call.types)}. Check for an update of the exporter."
            return BadAnswer(what, remedy=remedy, where=call.where)
        return BadAnswer(what, remedy=_NOT_EXPECTED, where=call.where)

    def _check_credentials(self, reply: _Reply) -> str:
        clock = _clock_off(reply)
        issuer = "the issuer id is the team's" if self._auth.issuer_id else "the key is an individual key"
        return (
            f"{clock}Check that key {self._auth.key_id} is not revoked (App Store Connect → Users and "
            f"Access → Integrations), that {issuer}, and that the private key file is the one of this key id."
        )


_METRICS_OF: dict[str, tuple[str, Endpoint]] = {
    "apps": ("app", "app_metrics"),
    "builds": ("build", "build_metrics"),
}
_NOT_APPLE = "Check base_url and any proxy in between: App Store Connect does not answer like this."
_NOT_EXPECTED = "Check base_url and for an update of the exporter; the text above is App Store Connect's."
_NOT_VISIBLE = (
    "Check the id, that it belongs to this account, and that the key may see it: an individual key "
    "sees the apps of its user only."
)
_ACCEPT_AGREEMENT = (
    "The key is fine. The Account Holder has to accept the pending agreement at App Store Connect → "
    "Business; requests work again shortly afterwards."
)
# Apple's table of program roles (developer.apple.com/support/roles) gives the reports of Xcode Organizer to
# these roles; the API's documentation names none for perfPowerMetrics. That a key's access is fixed: Apple's
# help page "App Store Connect API".
_LARGER_ROLE = (
    "The key is valid, but its role may not read this. Admin, App Manager and Developer may see the reports "
    "of Xcode Organizer, which show the same data. The access of a team key cannot be changed: revoke it and "
    "generate one with such a role; for an individual key, change the role of its user."
)


def _base_url_error(what: str) -> ConfigError:
    return ConfigError(
        what,
        remedy="Give an https URL such as https://api.appstoreconnect.apple.com, with a path if a proxy "
        "needs one. Plain http is allowed to localhost only, since a bearer token is sent there.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _address(url: httpx.URL) -> str:
    return printable(f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}", 200)


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    """Yield the distinct values, as many at a time as fit into one filter."""
    distinct = iter(dict.fromkeys(values))
    while part := list(itertools.islice(distinct, _FILTER_VALUES)):
        yield part


def _endless(where: str, pages: int) -> BadAnswer:
    return BadAnswer(f"the pages do not end: stopped after {pages}", remedy=_NOT_APPLE, where=where)


def _give_up(call: _Call, failure: _Failure, remedy: str) -> NoReturn:
    raise failure.kind(failure.what, remedy=remedy, where=call.where)


def _transport_failure(error: Exception) -> str:
    text = printable(str(error), 200)
    return f"no complete answer came: {type(error).__name__.lstrip('_')}{': ' if text else ''}{text}"


def _pieces(call: _Call, response: httpx.Response) -> Iterator[bytes]:
    """Yield the body decompressed, piece by piece, at least one for each that arrived, for the deadline.

    Not left to httpx, which decompresses whatever arrived in one go: a small answer may be a large one.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        yield from response.iter_raw()
    elif encoding in ("gzip", "x-gzip"):
        yield from _gunzipped(response.iter_raw())
    else:
        what = f"the answer has the Content-Encoding {printable(encoding, 80)}, which was not asked for"
        raise BadAnswer(what, remedy=_NOT_APPLE, where=call.where)


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for chunk in chunks:
            rest = chunk
            while rest and not inflate.eof:
                yield inflate.decompress(rest, _PIECE)
                rest = inflate.unconsumed_tail
            yield b""
        yield inflate.flush()
    except zlib.error as error:
        raise _CutOffError(f"the gzip data is damaged ({error})") from None
    if not inflate.eof:
        raise _CutOffError("the gzip data is not complete")


def _document(call: _Call, response: httpx.Response, body: bytes) -> Mapping[str, object] | None:
    """Return the JSON object of a 200, None if it was cut off; BadAnswer if it is something else."""
    content_type = response.headers.get("Content-Type", "")
    if content_type and content_type.partition(";")[0].strip().lower() not in call.types:
        raise _not_json(call, content_type, body)
    try:
        document = json.loads(body)
    except RecursionError:
        raise BadAnswer("the answer's JSON is nested too deep", remedy=_NOT_APPLE, where=call.where) from None
    except ValueError as error:
        if _is_cut_off(body.strip(), error):
            return None
        raise _not_json(call, content_type, body) from None
    if not isinstance(document, dict):
        raise _not_json(call, content_type, body)
    return document


def _is_cut_off(body: bytes, error: ValueError) -> bool:
    if not body.startswith(b"{"):
        return not body
    at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
    return at_end or not body.endswith(b"}")


def _not_json(call: _Call, content_type: str, body: bytes) -> BadAnswer:
    beginning = printable(body[:1000].decode("utf-8", "replace"), 80)
    return BadAnswer(
        "the answer is not a JSON object of App Store Connect",
        remedy=f"Its content type is {printable(content_type, 80) or 'missing'}, and it begins with "
        f"“{beginning}”. {_NOT_APPLE}",
        where=call.where,
    )


def _described(status: int, body: bytes) -> str:
    code, text = error_summary(body)
    head = f"{status} {code}".rstrip()
    return f"{head} ({text.rstrip('.')})" if text else head


def _redirected(call: _Call, response: httpx.Response, base: httpx.URL) -> BadAnswer:
    target = _address(response.next_request.url) if response.next_request else "nowhere"
    return BadAnswer(
        f"the answer is a redirect ({response.status_code}) to {target}, which was not followed",
        remedy=f"Check base_url, now {_address(base)}: the token is sent nowhere else.",
        where=call.where,
    )


def _clock_off(reply: _Reply) -> str:
    """Return a sentence on this machine's clock if it differs much from the answer's `Date`, else ''."""
    sent = http_date(reply.response.headers.get("Date", ""))
    off = 0.0 if sent is None else reply.received_at - sent
    if abs(off) <= _CLOCK_OFF:
        return ""
    word = "fast" if off > 0 else "slow"
    return f"This machine's clock is {abs(off):.0f} s {word}, which alone makes tokens invalid: set it. "
