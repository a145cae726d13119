"""All that knows the OTLP wire, and nothing that knows App Store Connect."""
