"""Values as people write them: durations, sizes, cron lines, addresses, patterns.

Each function takes what stood in the file or the variable and returns what the exporter works with, or
raises ValueError with the rest of a sentence that begins with the setting's name. No function repeats its
input in the error: it might be a secret that was put in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"
RATIO_PATTERN = r"^[0-9]+(\.[0-9]+)? ?%?$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?([kKMG]i?B|B)?$"

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_DURATION_PARTS = (86_400, 3_600, 60, 1, 0.001)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|[kKMG]i?B)?", re.ASCII)
_RATIO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(%?)", re.ASCII)
_SIZE_POWERS = {"B": 0, "k": 1, "K": 1, "M": 2, "G": 3}
_CRON_ITEM = re.compile(
    r"(\*|[0-9]{1,4}(-[0-9]{1,4})?)(/[0-9]{1,4})?|[a-z]{3}(-[a-z]{3})?|last", re.IGNORECASE
)
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def duration(value: object) -> float:
    """Seconds, from a number of seconds or text such as 90s, 4m, 6h, 1h30m, 1d, 500ms."""
    text = _number_or_text(value)
    if text is None or len(text) > 40:
        raise ValueError("must be a duration such as 90s, 4m, 6h or 1h30m, or a number of seconds")
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _DURATION.fullmatch(text)
    if parts is None or not text:
        raise ValueError("must be a duration such as 90s, 4m, 6h or 1h30m, or a number of seconds")
    return sum(
        int(count) * seconds
        for count, seconds in zip(parts.groups(), _DURATION_PARTS, strict=True)
        if count is not None
    )


def size(value: object) -> int:
    """Bytes, from a number of bytes or text such as 64MiB (powers of 1024) or 10MB (powers of 1000)."""
    text = _number_or_text(value)
    match = _SIZE.fullmatch(text) if text is not None and len(text) <= 40 else None
    if match is None:
        raise ValueError("must be a size such as 64MiB or 10MB, or a number of bytes")
    unit = match[2] or "B"
    return int(float(match[1]) * (1024 if "i" in unit else 1000) ** _SIZE_POWERS[unit[0]])


def ratio(value: object) -> float:
    """A ratio, from a number such as 0.05 or text such as 5%."""
    text = _number_or_text(value)
    match = _RATIO.fullmatch(text) if text is not None else None
    if match is None:
        raise ValueError("must be a ratio such as 0.05, or a percentage such as 5%")
    return float(match[1]) / (100 if match[2] else 1)


def _number_or_text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value).strip()


def cron(text: str) -> str:
    """A five-field cron line that APScheduler reads as cron does.

    APScheduler 3 numbers weekdays from Monday = 0 where cron has Sunday = 0, and reads a name with a step
    (`mon-fri/2`) as if the step were not there; both are refused rather than run on the wrong day.
    """
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(
            "must have five fields: minute, hour, day of month, month, weekday; as in 17 */6 * * *"
        )
    if any(not _CRON_ITEM.fullmatch(item) for field in fields for item in field.split(",")):
        raise ValueError(
            "must be made of numbers, *, ranges (1-5), steps (*/6) and names (jan, mon), as cron"
        )
    if re.search("[0-9]", fields[4]):
        raise ValueError(
            "must name weekdays as mon to sun (mon-fri, not 1-5): numbers mean other days elsewhere"
        )
    _check_fires(text)
    return " ".join(fields)


def _check_fires(text: str) -> None:
    # Imported here because settings are read by commands that never schedule anything.
    from apscheduler.triggers.cron import CronTrigger

    try:
        trigger = CronTrigger.from_crontab(text, timezone=UTC)
    except ValueError as error:
        raise ValueError(f"is not a cron line: {error}") from None
    if trigger.get_next_fire_time(None, datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise ValueError("names a date that never comes")


def timezone(name: str) -> str:
    """The name of a time zone that this machine's tz database knows."""
    try:
        zone(name)
    except (ValueError, OSError, KeyError):
        near = get_close_matches(name, available_timezones(), n=1) if len(name) < 60 else []
        hint = f"; did you mean {near[0]}?" if near else ", as in UTC or Europe/Berlin"
        raise ValueError(f"must be a time zone of the tz database{hint}") from None
    return name


def zone(name: str) -> tzinfo:
    """The time zone of this name; UTC is known even where no tz database is installed."""
    return UTC if name == "UTC" else ZoneInfo(name)


def split_url(text: str) -> SplitResult:
    """The parts of an http or https URL, without credentials in it."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s\x00-\x20\x7f]", text):
        raise ValueError("must be a URL that begins with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user name or password")
    return parts


def base_url(text: str) -> str:
    """A URL to which paths are appended: no query, no trailing slash."""
    parts = split_url(text)
    if parts.query or parts.fragment:
        raise ValueError("must end before any ? or #, because a path is appended to it")
    return text.rstrip("/")


def page_url(text: str) -> str:
    """A URL to which `#` and a place on the page are appended: it may have a query."""
    if "#" in text:
        raise ValueError("must end before any #, because the place on the page is appended to it")
    split_url(text)
    if unfit := re.search(r"[^A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]", text):
        raise ValueError(f"must not have {unfit[0]!a}: write it as %XX, as an address has it (RFC 3986)")
    return text


def grpc_target(text: str) -> str:
    """An http(s) URL, or any other target that gRPC resolves itself: host:port, dns:///…, unix:…"""
    if text.startswith(("http://", "https://")):
        split_url(text)
    elif re.search(r"[\s\x00-\x20\x7f@]", text):
        raise ValueError("must be host:port, or a URL that begins with http:// or https://")
    return text


def listen_address(text: str) -> tuple[str, int] | None:
    """Host and port of `127.0.0.1:13134`, `[::1]:13134` or `localhost:0`; None for `off`."""
    if text.lower() == "off":
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise ValueError("must be host:port, as in 127.0.0.1:13134, [::1]:13134 or 0.0.0.0:13134, or off")
    return match[1] or match[2], int(match[3])


def file_path(path: Path) -> Path:
    """A path that the operating system can be asked for."""
    if not str(path).isprintable():
        raise ValueError("must be the path of a file, on one line")
    return path


def patterns(entries: Iterable[str]) -> tuple[str, ...]:
    """Globs; `!…` excludes. A list that only excludes means everything else, so `*` is put in front."""
    texts = tuple(entry.strip() for entry in entries)
    if any(text in ("", "!") for text in texts):
        raise ValueError("must not have an empty entry")
    return texts if any(not text.startswith("!") for text in texts) else ("*", *texts)


def categories(entries: Iterable[str]) -> tuple[str, ...]:
    """Globs on Apple's category identifiers, in upper case as Apple writes them."""
    return tuple(text.upper() for text in patterns(entries))


def devices(entries: Iterable[str]) -> tuple[str, ...]:
    """Globs on Apple's device identifiers; none begins with a digit, a half of `iPhone15,2` does."""
    texts = patterns(entries)
    if any(text.lstrip("!")[:1].isdigit() for text in texts):
        raise ValueError('must have identifiers with a comma in quotes, as in ["iPhone15,2"]')
    return texts


def header_name(name: str) -> str:
    """A header's name in lower case, as gRPC demands and HTTP does not mind."""
    lowered = name.strip().lower()
    if not _HEADER_NAME.fullmatch(lowered):
        raise ValueError("must have header names made of letters, digits and hyphens")
    return lowered


def check_header_value(value: str) -> None:
    """Refuse what would end the header early or cannot be sent: control characters and non-ASCII."""
    if not re.fullmatch(r"[\x20-\x7e\t]*", value):
        raise ValueError("must have header values in printable ASCII on one line")
