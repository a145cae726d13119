"""All that knows App Store Connect, and nothing that knows OTLP."""
