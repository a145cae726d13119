"""A saved answer of App Store Connect: read, unpacked and recognised."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO, Literal, NamedTuple

import httpx

from exporter.appstore.documents import loads_deep
from exporter.appstore.jsonapi import error_summary, printable
from exporter.errors import BadAnswer, ConfigError

Kind = Literal["xcodeMetrics", "diagnosticLogs", "diagnosticSignatures", "xcodeOverview"]

MOST_BYTES = 256 * 1024 * 1024  # of a file, packed and unpacked
_GZIP = b"\x1f\x8b"
_EXPECTED = (
    "Expected is an answer of App Store Connect as it came, JSON or gzip of it: xcodeMetrics (from "
    "perfPowerMetrics), diagnosticSignatures, diagnosticLogs (from …/logs) or xcodeOverview (from "
    "performanceOverviews)."
)


class Saved(NamedTuple):
    """An answer; every number in the document is a float."""

    kind: Kind
    document: Mapping[str, Any]


def read(file: BinaryIO, name: str, most_bytes: int = MOST_BYTES) -> Saved:
    """Read and recognise a saved answer.

    Args:
        file: read to its end.
        name: what the file is called in errors.

    Raises:
        ConfigError: it is none of the four; the error says what it looks like.
    """
    try:
        body = _unpacked(file.read(most_bytes + 1), most_bytes)
        document = _loaded(body)
        kind = _kind(document)
    except ValueError as error:
        raise _refused(name, str(error)) from None
    if kind is None:
        raise _refused(name, f"the file is {_looks_like(document, body)}")
    return Saved(kind, document)  # type: ignore[arg-type]  # what has a kind is an object


def _refused(name: str, what: str) -> ConfigError:
    return ConfigError(what, remedy=_EXPECTED, where=printable(name, 200))


def _unpacked(body: bytes, most_bytes: int) -> bytes:
    _check_size(body, most_bytes)
    if not body.startswith(_GZIP):
        return body
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as packed:
            unpacked = packed.read(most_bytes + 1)
    except (OSError, EOFError, zlib.error):
        raise ValueError("the file is gzip, but damaged or not complete") from None
    _check_size(unpacked, most_bytes)
    return unpacked


def _check_size(body: bytes, most_bytes: int) -> None:
    if len(body) > most_bytes:
        raise ValueError(f"the file has more than {most_bytes} bytes")


def _loaded(body: bytes) -> object:
    if not body.strip():
        raise ValueError("the file is empty")
    try:
        return _decoded(body)
    except httpx.RemoteProtocolError:
        text = body.decode("utf-8", "replace")
        raise ValueError(_broken_off(text)) from None
    except BadAnswer as error:
        raise ValueError(error.what.replace("the answer's", "the file's")) from None
    except json.JSONDecodeError as error:
        raise ValueError(_no_json(error.doc, error.pos, error.msg)) from None
    except UnicodeDecodeError as error:
        before = body[: error.start].decode(error.encoding, "replace")
        text = body.decode(error.encoding, "replace")
        raise ValueError(_no_json(text, len(before), f"not {error.encoding}")) from None
    except ValueError as error:
        raise ValueError(f"the file is no JSON: {printable(str(error), 100)}") from None


def _no_json(text: str, place: int, why: str) -> str:
    """Say how and where the text stops being JSON.

    Args:
        place: up to where it was read.
        why: the parser's words.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return f"the file is no JSON: it begins with “{printable(text[:1000], 60)}”"
    if why == "Extra data":
        return f"the file is JSON with something behind it, at {_where(text, place)}"
    if place >= len(text.rstrip()) or text.rstrip()[-1] not in "}]":
        return _broken_off(text)
    return f"the file's JSON is broken at {_where(text, place)}: {why[:1].lower()}{why[1:]}"


def _broken_off(text: str) -> str:
    return f"the file ends in the middle of its JSON, at {_where(text, len(text.rstrip()))}"


def _where(text: str, place: int) -> str:
    line = text.count("\n", 0, place) + 1
    return f"line {line}, character {place - text.rfind(chr(10), 0, place)}"


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body, parse_int=float)
    except RecursionError:
        return loads_deep(body)


def _kind(document: object) -> Kind | None:
    if not isinstance(document, dict):
        return None
    products = document.get("productData")
    if isinstance(products, list):
        return _kind_of_products(products, document)
    if isinstance(document.get("data"), list):
        signatures = "diagnosticSignatures" in (_type(document) or str(_self_link(document)))
        return "diagnosticSignatures" if signatures else None
    if isinstance(document.get("signatures"), dict) or isinstance(document.get("categories"), list):
        return "xcodeOverview"
    return None


def _kind_of_products(products: list[object], document: Mapping[str, object]) -> Kind | None:
    names = {name for product in products if isinstance(product, dict) for name in product}
    if names & {"signatureId", "diagnosticLogs", "diagnosticInsights"}:
        return "diagnosticLogs"
    if "metricCategories" in names or "insights" in document:
        return "xcodeMetrics"
    return None if products else "diagnosticLogs"


def _type(document: Mapping[str, Any]) -> str:
    """The type of a listing's first entry."""
    first = document["data"][0] if document["data"] else None
    return str(first.get("type", "")) if isinstance(first, dict) else ""


def _self_link(document: Mapping[str, Any]) -> object:
    links = document.get("links")
    return links.get("self") if isinstance(links, dict) else ""


def _looks_like(document: object, body: bytes) -> str:
    if not isinstance(document, dict):
        return "JSON, but not an object"
    if isinstance(document.get("errors"), list):
        return "an error of App Store Connect: " + " ".join(filter(None, error_summary(body))).rstrip(".")
    if isinstance(document.get("data"), list):
        kind = printable(_type(document), 60)
        return f"a listing of {kind}" if kind else "a listing that does not say of what"
    keys = [printable(key, 30) for key in list(document)[:8]]
    return f"a JSON object with the keys {', '.join(keys)}" if keys else "an empty JSON object"
