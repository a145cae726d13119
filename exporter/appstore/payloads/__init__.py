"""App Store Connect's payloads → frozen dataclasses. Pure."""
