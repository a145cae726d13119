"""Settings from environment variables, laid over the tree of the file.

Three kinds, lowest first: ASC_* for a single account, the OpenTelemetry variables and PERFPOWER_STATE, and
PERFPOWER__SECTION__KEY for any setting at all. An empty variable counts as not set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin
from urllib.parse import unquote

from pydantic import BaseModel

from exporter.errors import ConfigError
from exporter.settings.document import KeyPath, Origin, Problem, Tree, read_value
from exporter.settings.models import Settings

OVERRIDE = "PERFPOWER__"
# One underscore where there are two; not what Kubernetes sets for a Service of that name.
_NEAR_MISS = re.compile(
    r"PERFPOWER_(?:ACCOUNTS|SCHEDULE|COLLECT|DIAGNOSTICS|REGRESSION|LIMITS|OTLP|HTTP|LOG|ALERTS)_+(?!SERVICE_|PORT(?:_|$))[A-Z]"
)

_ACCOUNT = {
    "ASC_ISSUER_ID": "issuer_id",
    "ASC_KEY_ID": "key_id",
    "ASC_PRIVATE_KEY": "private_key",
    "ASC_PRIVATE_KEY_FILE": "private_key_file",
    "ASC_BASE_URL": "base_url",
}
_KEY = set(_ACCOUNT) - {"ASC_BASE_URL"}
_OTLP = (
    "PROTOCOL",
    "HEADERS",
    "COMPRESSION",
    "TIMEOUT",
    "CERTIFICATE",
    "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
    "INSECURE",
)


def overlay(tree: Tree, environ: Mapping[str, str]) -> None:
    """Lay what the environment says over the tree; what cannot be used becomes a problem of the tree."""
    given = {name: value for name, value in environ.items() if value}
    if not tree.root.get("accounts") and not _overrides_name_an_account(given):
        _put_account(tree, given)
    _put_opentelemetry(tree, given)
    if path := given.get("PERFPOWER_STATE"):
        _put(tree, ("state", "path"), path, "PERFPOWER_STATE")
    for name in filter(_NEAR_MISS.match, given):
        tree.problems.append(Problem(name, (), "is read by nobody", _two_underscores(name)))
    for name in sorted((name for name in given if name.startswith(OVERRIDE)), key=_order):
        _override(tree, name, given[name])


def _two_underscores(name: str) -> str:
    section, _, key = name.removeprefix("PERFPOWER_").partition("_")
    return f"Write it with two underscores: {OVERRIDE}{section}__{key.lstrip('_')}."


def _put(tree: Tree, path: KeyPath, value: object, name: str) -> None:
    if path == ("otlp", "endpoint"):
        # A target named by a variable outranks the full address that a lower layer names.
        otlp = tree.root.get("otlp")
        if isinstance(otlp, dict):
            otlp.pop("metrics_endpoint", None)
            otlp.pop("logs_endpoint", None)
    try:
        tree.put(path, value, name)
    except ConfigError as error:
        tree.problems.append(Problem(name, (), error.what, error.remedy))


def _overrides_name_an_account(given: Mapping[str, str]) -> bool:
    return "PERFPOWER__ACCOUNTS" in given or "PERFPOWER__ACCOUNTS__0__KEY_ID" in given


def _put_account(tree: Tree, given: Mapping[str, str]) -> None:
    if not _KEY.intersection(given):
        return
    for name, key in _ACCOUNT.items():
        if name in given:
            _put(tree, ("accounts", 0, key), given[name], name)
    apps = [entry.strip() for entry in given.get("ASC_APPS", "").split(",") if entry.strip()]
    if apps:
        _put(tree, ("accounts", 0, "apps"), apps, "ASC_APPS")
    tree.origins["accounts", 0] = Origin("the ASC_* variables")


def _put_opentelemetry(tree: Tree, given: Mapping[str, str]) -> None:
    """OTEL_EXPORTER_OTLP_*, and OTEL_EXPORTER_OTLP_METRICS_* which win; for logs, the endpoint alone.

    Meanings: https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
    """
    for path in ("endpoint", "metrics_endpoint", "logs_endpoint"):
        name = path.upper()
        if address := given.get(f"OTEL_EXPORTER_OTLP_{name}"):
            _put(tree, ("otlp", path), address, f"OTEL_EXPORTER_OTLP_{name}")
    for suffix in _OTLP:
        for name in (f"OTEL_EXPORTER_OTLP_METRICS_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"):
            if name in given:
                _put_otlp(tree, suffix, name, given[name])
                break


def _put_otlp(tree: Tree, suffix: str, name: str, text: str) -> None:
    convert = _CONVERT.get(suffix, str)
    path = ("otlp", suffix.lower())
    try:
        _put(tree, path, convert(text), name)
    except ValueError as error:
        tree.problems.append(Problem(name, path, str(error)))


def _milliseconds(text: str) -> str:
    if not re.fullmatch(r"\s*[0-9]{1,12}\s*", text):
        raise ValueError("must be a whole number of milliseconds, as in 10000")
    return str(int(text) / 1000)


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in filter(str.strip, text.split(",")):
        name, equals, value = pair.partition("=")
        key = unquote(name).strip().lower()
        if not equals or not key or key in headers:
            raise ValueError(
                "must be name=value pairs with commas between, values URL-encoded, each name once"
            )
        headers[key] = unquote(value).strip()
    return headers


_CONVERT: dict[str, Callable[[str], object]] = {"TIMEOUT": _milliseconds, "HEADERS": _headers}


def _path(name: str) -> KeyPath:
    """`PERFPOWER__ACCOUNTS__0__KEY_ID` → ("accounts", 0, "key_id")."""
    steps = name.removeprefix(OVERRIDE).split("__")
    return tuple(int(step) if re.fullmatch("[0-9]{1,4}", step) else step.lower() for step in steps)


def _order(name: str) -> tuple[str, ...]:
    """Wholes before their parts, and item 2 before item 10."""
    return tuple(str(step).zfill(4) for step in _path(name))


def _override(tree: Tree, name: str, text: str) -> None:
    path = _path(name)
    try:
        structured = _is_structured(path)
        value = read_value(text, path, name, tree) if structured else text
    except ConfigError as error:
        tree.problems.append(Problem(name, (), error.what, error.remedy))
    else:
        _put(tree, path, value, name)


def _is_structured(path: KeyPath) -> bool:
    """Whether the setting at this path is a list or a mapping, which a variable gives as YAML.

    Raises:
        ConfigError: there is no such setting.
    """
    kind: object = Settings
    for step in path:
        kind = _inside(kind, step)
    return _is_section(kind) or get_origin(kind) in (tuple, dict)


def _inside(kind: object, step: str | int) -> object:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        if step in fields:
            return _bare(fields[str(step)].annotation)
        near = get_close_matches(str(step), fields, n=1)
        remedy = f"Did you mean {near[0].upper()}?" if near else f"Known: {', '.join(fields).upper()}."
        raise ConfigError("there is no such setting", remedy=remedy)
    if get_origin(kind) is tuple:
        if isinstance(step, int):
            return _bare(get_args(kind)[0])
        raise ConfigError("a list needs a number here", remedy="The first item is 0.")
    if get_origin(kind) is dict:
        raise ConfigError(
            "a key of this mapping cannot be set alone", remedy="Give the whole: {name: value}."
        )
    raise ConfigError("there is no setting below this one", remedy=f"Leave out {str(step).upper()}.")


def _bare(kind: object) -> object:
    """The type without Annotated and without None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _bare(next(choice for choice in get_args(kind) if choice is not NoneType))
    return kind


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
