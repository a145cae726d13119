"""The JSON Schema of the configuration file, for editors and the reference page."""

from __future__ import annotations

from typing import Any

from exporter.settings.models import Settings

_REFERENCE = {"type": "string", "pattern": r"\$\{", "description": "Taken from the environment."}
_ABOUT = ("description", "default")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the file as it is written: with `${NAME}`, and with keys left empty."""
    schema = Settings.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        required = section.get("required", ())
        section["properties"] = {
            name: _as_written(about, name in required) for name, about in section["properties"].items()
        }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "perfpower-exporter"}
    return {**schema, **head}


def _as_written(about: dict[str, Any], required: bool) -> dict[str, Any]:
    kept = {key: about[key] for key in _ABOUT if key in about}
    rest = {key: value for key, value in about.items() if key not in (*kept, "title")}
    choices = rest.pop("anyOf", None) or [rest]
    if "$ref" in rest:
        kept.pop("default", None)  # the section's own keys have their defaults
    scalar = any(choice.get("type") in ("boolean", "integer", "number", "string") for choice in choices)
    if scalar and not any(map(_takes_any_text, choices)):
        choices = [*choices, _REFERENCE]
    if not required and {"type": "null"} not in choices:
        choices = [*choices, {"type": "null"}]
    return {**kept, "anyOf": choices} if len(choices) > 1 else {**kept, **choices[0]}


def _takes_any_text(choice: dict[str, Any]) -> bool:
    return choice.get("type") == "string" and not {"pattern", "enum"} & set(choice)
