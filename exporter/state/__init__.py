"""What must survive a restart."""

from exporter.state.state import Answered, Item, Source, State, recent_requests, unreadable

__all__ = ["Answered", "Item", "Source", "State", "recent_requests", "unreadable"]
