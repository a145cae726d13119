"""Splunk Observability: dashboards and detectors as Terraform JSON. Pure."""

from exporter.assets.splunk.terraform import files

__all__ = ["files"]
