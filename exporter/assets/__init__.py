"""Dashboards and alerts, described once and written for each backend. Pure."""

BACKENDS = ("datadog", "splunk", "grafana", "prometheus")
"""Each has a module of its name with `files(dashboards, alerts, wishes) -> dict[str, str]`."""
