"""Datadog: dashboards and monitors as the API's JSON, and a small Terraform module over them. Pure."""

from exporter.assets.datadog.dashboards import files

__all__ = ["files"]
