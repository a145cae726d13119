"""What must survive a restart."""

from exporter.state.state import (
    MOST_EVENTS,
    Answered,
    Item,
    Source,
    State,
    Trouble,
    forget_sources,
    recent_requests,
    unreadable,
)

__all__ = [
    "MOST_EVENTS",
    "Answered",
    "Item",
    "Source",
    "State",
    "Trouble",
    "forget_sources",
    "recent_requests",
    "unreadable",
]
