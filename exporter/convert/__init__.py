"""App Store Connect's words → OTLP's. Pure: data in, data out."""
