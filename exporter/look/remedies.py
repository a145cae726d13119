"""What to do about a failure when a person asked and no poll will ask again. Pure."""

from __future__ import annotations

from exporter.errors import AppStoreError, OverBudget

_INSTEAD = {
    "The next poll asks again.": "Try again later.",
    "the next poll asks again.": "try again later.",
    "It is asked for again tomorrow.": "Try again later.",
    "The last good data stays. ": "",
}
_ALL_OF_THE_HOUR = (
    "PERFPOWER__LIMITS__KEY_SHARE=1 in front of the command uses all of the key's hour for this once."
)


def by_hand(error: AppStoreError, share: float) -> str:
    """The error's remedy, for someone who asked by hand.

    Args:
        share: of the key's hour that was to be used at most.
    """
    remedy = error.remedy
    for words, instead in _INSTEAD.items():
        remedy = remedy.replace(words, instead)
    if isinstance(error, OverBudget) and share < 1:
        remedy += f" {_ALL_OF_THE_HOUR}"
    return remedy.strip()
