"""A built-in App Store Connect and OTLP receiver, over real HTTP: the first five minutes, and the tests."""
