"""File, environment and model put together; every mistake is reported, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from exporter.errors import ConfigError
from exporter.settings.document import KeyPath, Problem, Tree, read_file
from exporter.settings.environment import overlay
from exporter.settings.models import Account, Settings

NO_ACCOUNT = (
    "Set ASC_ISSUER_ID, ASC_KEY_ID and ASC_PRIVATE_KEY_FILE (or ASC_PRIVATE_KEY with the key itself), or "
    "list accounts in the configuration file. To look around without an account, use "
    "`perfpower-exporter run --sandbox`."
)

_SECRET = {"private_key", "headers"}
_WITHOUT_A_KEY = ("schedule", "alerts")
_WATCHED = ("environment", "apps")  # of an account: what its points bear
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping: keys with values",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "model_type": "must be a mapping: keys with values",
    "path_type": "must be the path of a file",
    "string_type": "must be text",
    "int_parsing_size": "must be a smaller number",
    "string_too_long": "must have at most 200 characters",
    "string_too_short": "must not be empty",
    "string_unicode": "must be UTF-8 text",
    "too_short": "must not be an empty list",
    "tuple_type": "must be a list: [a, b], or each entry on its own line after a dash",
}
_QUOTABLE = {"bool_parsing", "float_parsing", "int_parsing", "literal_error", "value_error"}


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings from a file and the environment.

    Highest first: PERFPOWER__SECTION__KEY; OTEL_EXPORTER_OTLP_* and PERFPOWER_STATE; the file; ASC_*, only
    when nothing above names an account; the defaults.

    Args:
        path: the YAML file; None for the one that PERFPOWER_CONFIG names, or for no file at all.
        environ: the environment variables.

    Raises:
        ConfigError: with every mistake found, one a line; no secret is part of it.
    """
    tree = _tree(path, environ)
    settings, problems = _validated(tree)
    problems = [*tree.problems, *problems]
    if not tree.root.get("accounts"):
        problems.append(Problem("", (), "no App Store Connect account is configured", NO_ACCOUNT))
    if settings is None or problems:
        raise _error(problems)
    return settings


def load_without_accounts(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The schedule and the alerts of a configuration, on a machine that has no key: the rest is the defaults.

    The other sections are not looked at: they may need variables that are set elsewhere.

    Args:
        path: as for `load`.
        environ: the environment variables.

    Raises:
        ConfigError: with every mistake in these two sections, and with sections that do not exist.
    """
    tree = _tree(path, environ)
    tree.root = {
        name: value
        for name, value in tree.root.items()
        if name in _WITHOUT_A_KEY or name not in Settings.model_fields
    }
    settings, problems = _validated(tree)
    ours = [problem for problem in tree.problems if not problem.path or problem.path[0] in tree.root]
    if settings is None or ours or problems:
        raise _error([*ours, *problems])
    return settings


def watched_without_a_key(path: Path | None, environ: Mapping[str, str]) -> tuple[Account, ...]:
    """The accounts for the sake of their environment and apps, on a machine that has no key: that is made up.

    Empty where nothing can be told: there are none, one is not written as it should be, or its environment or
    apps need a variable that is set elsewhere.

    Raises:
        ConfigError: as for `load_without_accounts`, where the file cannot be read at all.
    """
    accounts = _tree(path, environ).root.get("accounts")
    if not isinstance(accounts, list) or not all(isinstance(account, dict) for account in accounts):
        return ()
    chosen = [{key: account[key] for key in _WATCHED if account.get(key)} for account in accounts]
    if "${" in repr(chosen):
        return ()
    try:
        return tuple(Account.model_validate({**one, "key_id": "-", "private_key": "-"}) for one in chosen)
    except ValidationError:
        return ()


def _tree(path: Path | None, environ: Mapping[str, str]) -> Tree:
    chosen = path or (Path(environ["PERFPOWER_CONFIG"]) if environ.get("PERFPOWER_CONFIG") else None)
    tree = read_file(chosen, environ) if chosen else Tree()
    overlay(tree, environ)
    return tree


def _validated(tree: Tree) -> tuple[Settings | None, list[Problem]]:
    try:
        return Settings.model_validate(tree.root), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    # A value that could not be read has its problem already; that it does not fit is no news.
    known = {problem.path for problem in tree.problems if problem.path}
    return None, [_problem(detail, tree) for detail in details if not _within(detail["loc"], known)]


def _within(path: KeyPath, known: Iterable[KeyPath]) -> bool:
    return any(path[: len(start)] == start for start in known)


def _problem(detail: ErrorDetails, tree: Tree) -> Problem:
    path = tuple(step for step in detail["loc"] if step != "[key]")
    place = tree.origin(path).place
    if detail["type"] == "extra_forbidden":
        return Problem(place, path, "is not a setting", _closest(path))
    if detail["type"] == "missing":
        return Problem(place, path, "is missing", _purpose(path))
    return Problem(place, path, _what(detail) + _quoted(detail, path, tree), "")


def _what(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "literal_error":
        return f"must be one of {context['expected']}"
    if detail["type"] == "value_error":
        return str(context["error"])
    return _WORDS.get(detail["type"]) or detail["msg"].replace("Input should", "must").replace("valid ", "")


def _quoted(detail: ErrorDetails, path: KeyPath, tree: Tree) -> str:
    """What stands there, when it stands in the file, is one short value, and cannot be a secret."""
    value = detail["input"]
    if detail["type"] not in _QUOTABLE or not isinstance(value, str) or _SECRET.intersection(path):
        return ""
    if not tree.origin(path).literal or len(value) > 40 or not value.isprintable() or "://" in value:
        return ""
    return f" (it is {value!r})"


def _closest(path: KeyPath) -> str:
    fields = _section(path[:-1]).model_fields
    near = get_close_matches(str(path[-1]), fields, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(fields)}."


def _purpose(path: KeyPath) -> str:
    field = _section(path[:-1]).model_fields.get(str(path[-1]))
    return field.description or "" if field else ""


def _section(path: KeyPath) -> type[BaseModel]:
    """The model whose keys stand at this path; pydantic says of no other place that a key is wrong there."""
    section: type[BaseModel] = Settings
    for step in path:
        if isinstance(step, str):
            section = _model_in(section.model_fields[step].annotation)
    return section


def _model_in(annotation: object) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    choices = getattr(annotation, "__args__", ())
    return _model_in(next(choice for choice in choices if choice not in (NoneType, Ellipsis)))


def _error(problems: list[Problem]) -> ConfigError:
    *others, last = problems
    if not others:
        return _one(last)
    lines = [str(_one(problem)) for problem in others]
    lines.append(f"{last.place}: {_sentence(last)}" if last.place else _sentence(last))
    listed = "".join(f"\n- {line}" for line in lines)
    return ConfigError(
        f"{len(problems)} things are wrong with the configuration:{listed}", remedy=last.remedy
    )


def _one(problem: Problem) -> ConfigError:
    return ConfigError(_sentence(problem), where=problem.place, remedy=problem.remedy)


def _sentence(problem: Problem) -> str:
    return f"{_spelled(problem.path)} {problem.what}" if problem.path else problem.what


def _spelled(path: KeyPath) -> str:
    """A path as it is said: `accounts[0].apps.include[2]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_short(step)}" for step in path)
    return text.removeprefix(".")


def _short(key: str) -> str:
    printable = key if key.isprintable() else repr(key)
    return printable if len(printable) <= 60 else f"{printable[:60]}…"
