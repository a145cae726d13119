"""Prometheus: rules and their unit tests. Pure."""

from exporter.assets.prometheus.rules import files

__all__ = ["files"]
