"""The configuration: models, file, environment.

`load()` is the way in; `json_schema()` describes the file for editors and the reference page.
"""

from exporter.settings.loading import load, load_without_accounts, watched_without_a_key
from exporter.settings.models import (
    Account,
    Alerts,
    AppSelection,
    Collect,
    Http,
    Limits,
    Log,
    Otlp,
    Schedule,
    Settings,
    State,
)
from exporter.settings.schema import json_schema

__all__ = [
    "Account",
    "Alerts",
    "AppSelection",
    "Collect",
    "Http",
    "Limits",
    "Log",
    "Otlp",
    "Schedule",
    "Settings",
    "State",
    "json_schema",
    "load",
    "load_without_accounts",
    "watched_without_a_key",
]
