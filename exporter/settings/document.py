"""A YAML text as plain values, each with the place it came from.

Scalars stay text, as they stand: the model knows whether `no`, `012` or `1e3` is meant as text or as a
number, YAML can only guess. Only a plain `null`, `~` or nothing at all is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from exporter.errors import ConfigError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 50_000

KeyPath = tuple[str | int, ...]
_Holder = dict[str, object] | list[object]

_REFERENCE = re.compile(r"\$(\$?)\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{).)*))?", re.DOTALL)
_NULL = "tag:yaml.org,2002:null"
_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
}
_QUOTE = "A value that begins with *, &, ! or % must stand in quotes."


@dataclass(frozen=True)
class Origin:
    """Where a value stands: `exporter.yaml:12`, or the name of a variable.

    `literal` is true when the value stands in the file itself, so that an error may repeat it; a variable
    may hold a secret that was meant for another setting.
    """

    place: str
    literal: bool = False


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the words of a ConfigError."""

    place: str
    path: KeyPath
    what: str
    remedy: str = ""


@dataclass
class Tree:
    """The configuration before it is checked: values, their origins, and what was wrong on the way."""

    root: dict[str, object] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=lambda: {(): Origin("the environment")})
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: KeyPath) -> Origin:
        """The origin of the value at this path, or of the nearest thing around it."""
        around = (path[:length] for length in range(len(path), -1, -1))
        return next(self.origins[place] for place in around if place in self.origins)

    def put(self, path: KeyPath, value: object, place: str) -> None:
        """Set one value, making the mappings and lists on the way to it; all of them come from `place`.

        What was there before is forgotten, and with it what was wrong with it.

        Raises:
            ConfigError: an index leaves a gap in a list.
        """
        holder: _Holder = self.root
        for depth in range(1, len(path)):
            holder = self._enter(holder, path[:depth], path[depth], place)
        _set(holder, path[-1], value)
        self._forget(path, place)
        self.origins[path] = Origin(place)

    def _forget(self, path: KeyPath, place: str) -> None:
        for below in [known for known in self.origins if known[: len(path)] == path]:
            if self.origins[below].place != place:
                del self.origins[below]
        self.problems = [
            problem
            for problem in self.problems
            if problem.place == place or problem.path[: len(path)] != path
        ]

    def _enter(self, holder: _Holder, path: KeyPath, following: str | int, place: str) -> _Holder:
        """The list or mapping at `path`, made if there is none that can hold `following`."""
        inside = _child(holder, path[-1])
        if isinstance(inside, list) and isinstance(following, int):
            return inside
        if isinstance(inside, dict) and isinstance(following, str):
            return inside
        made: _Holder = [] if isinstance(following, int) else {}
        if isinstance(made, dict) and isinstance(inside, list) and path[-1] == "apps":
            # A list is short for `include` there: an override beside it must not drop it.
            made["include"] = inside
        _set(holder, path[-1], made)
        self.origins.setdefault(path, Origin(place))
        return made


def _child(holder: _Holder, step: str | int) -> object:
    if isinstance(holder, dict):
        return holder.get(str(step))
    return holder[step] if isinstance(step, int) and step < len(holder) else None


def _set(holder: _Holder, step: str | int, value: object) -> None:
    if isinstance(holder, dict):
        holder[str(step)] = value
    elif isinstance(step, int) and step < len(holder):
        holder[step] = value
    elif step == len(holder):
        holder.append(value)
    else:
        raise ConfigError(
            f"there is no item {step}, the list has {len(holder)}",
            remedy=f"Use an index up to {len(holder)}.",
        )


def read_file(path: Path, environ: Mapping[str, str]) -> Tree:
    """The configuration file as a tree; `${NAME}` and `${NAME:-default}` in values come from `environ`.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or holds more than a configuration can.
    """
    text = _text(path)
    tree = Tree(origins={(): Origin(str(path), literal=True)})
    reader = _Reader(tree, lambda line: Origin(f"{path}:{line}", literal=True), environ)
    root = reader.read(text, (), str(path))
    if not isinstance(root, dict):
        what = "is empty" if root is None else "must be a mapping with keys such as accounts and otlp"
        raise ConfigError(
            f"the file {what}", where=str(path), remedy="config/exporter.yaml is a commented example."
        )
    tree.root = root
    return tree


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid path"
        raise ConfigError(
            f"the configuration file cannot be read: {reason.lower()}",
            where=str(path),
            remedy="Give the path of a readable YAML file.",
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError("the configuration file is larger than 1 MiB", where=str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "the file is not UTF-8", where=f"{path}:{line}", remedy="Save it as UTF-8."
        ) from None


def read_value(text: str, path: KeyPath, variable: str, tree: Tree) -> object:
    """The YAML text of a variable, for the place in the tree where it will stand.

    Raises:
        ConfigError: the text is no YAML.
    """
    return _Reader(tree, lambda _line: Origin(variable), None).read(text, path, variable)


class _Loader(yaml.SafeLoader):
    """Composes nodes, and stops before deep nesting exhausts the stack."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH or self.nodes > MAX_NODES:
            problem = "nested too deeply" if self.depth > MAX_DEPTH else "too many values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Turns YAML nodes into values of one tree."""

    def __init__(
        self, tree: Tree, origin_at: Callable[[int], Origin], environ: Mapping[str, str] | None
    ) -> None:
        self._tree = tree
        self._origin_at = origin_at
        self._environ = environ
        self._nodes = 0

    def read(self, text: str, path: KeyPath, place: str) -> object:
        node = _compose(text, place)
        return None if node is None else self._value(node, path)

    def _value(self, node: yaml.Node, path: KeyPath) -> object:
        self._nodes += 1
        # An alias can stand inside its own anchor, or stand for many others that do the same.
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise ConfigError(
                "the YAML is too large once its aliases are written out",
                where=self._origin_at(_line(node)).place,
                remedy="Write out what the aliases stand for.",
            )
        if node.tag not in _TAGS:
            self._problem(node, path, "has a YAML tag, which no setting uses", _QUOTE)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: KeyPath) -> object:
        self._tree.origins[path] = self._origin_at(_line(node))
        return self._value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            place = (*path, name)
            if not name or key.tag.endswith(":merge"):
                self._problem(key, path, "has a key that is no name", "Write out what a << would merge in.")
            elif name in found:
                self._problem(key, place, "is given twice", "Keep one of them.")
            else:
                self._tree.origins[place] = self._origin_at(_line(key))
                found[name] = self._value(value, place)
        return found

    def _scalar(self, node: yaml.Node, path: KeyPath) -> str | None:
        text = str(node.value)
        if node.tag == _NULL:
            return None
        if self._environ is None or "${" not in text:
            return text
        return _REFERENCE.sub(lambda match: self._resolve(match, node, path), text)

    def _resolve(self, match: re.Match[str], node: yaml.Node, path: KeyPath) -> str:
        escaped, body, closed = match.groups()
        if escaped:
            return "${" + body + closed
        reference = _VARIABLE.fullmatch(body) if closed else None
        if reference is None:
            self._problem(
                node, path, "has a ${ that cannot be read", "Write ${NAME}, ${NAME:-default}, or $${."
            )
            return match[0]
        name, default = reference[1], reference[2]
        place = self._origin_at(_line(node)).place
        self._tree.origins[path] = Origin(f"{place} (from {name})")
        return self._variable(name, default, node, path)

    def _variable(self, name: str, default: str | None, node: yaml.Node, path: KeyPath) -> str:
        value = (self._environ or {}).get(name)
        if value is None and default is None:
            remedy = f"Set it, or write ${{{name}:-default}}."
            self._problem(node, path, f"needs the environment variable {name}, which is not set", remedy)
            return f"${{{name}}}"
        return value or default or ""

    def _problem(self, node: yaml.Node, path: KeyPath, what: str, remedy: str) -> None:
        self._tree.problems.append(Problem(self._origin_at(_line(node)).place, path, what, remedy))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _compose(text: str, place: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{place}:{mark.line + 1}" if mark else place
        what = f"the YAML cannot be read: {_in_words(error)}"
        remedy = f"Look at the indentation and brackets there and just above. {_QUOTE}"
        raise ConfigError(what, where=where, remedy=remedy) from None
    except yaml.YAMLError:
        raise ConfigError("the YAML has a character that YAML does not allow", where=place) from None


def _in_words(error: yaml.MarkedYAMLError) -> str:
    # PyYAML quotes names from the text, which may be a secret: only its own words are kept.
    words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    return re.sub(
        r"""'[^']{2,}'|"[^"]{2,}"|'.'""", lambda quoted: quoted[0] if len(quoted[0]) == 3 else "…", words
    )
