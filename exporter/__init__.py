"""App Store performance metrics as OpenTelemetry: see README.md."""

__version__ = "0.1.0"
