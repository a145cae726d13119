"""Looking by hand: App Store Connect's answers, asked for or saved, as documents and as tables.

Nothing is sent to an endpoint, and nothing is stored.
"""
