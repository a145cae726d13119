"""The newest version of an app against the versions before it. Pure.

For each metric, platform, device and percentile, the value of the platform's newest version is held against
the mean of the earlier versions' values:

- **Mean.** Each earlier version that has a value counts once, however much it was used: Apple does not say
  how many measurements stand behind a value. It is a mean of percentiles, not the percentile of all users.
- **`delta`** = value / mean − 1. Only for the platform's newest version, with at least one earlier version to
  compare it with, and a mean above 0.
- **Margins.** The margin of the mean is that of independent errors, √(Σe²) / n. Where Apple sends no margin
  for a version, the largest one known in the comparison takes its place; where none is known, all count as 0
  and the least change alone decides.
- **Beyond both margins** means |value − mean| > margin of the value + margin of the mean: the two intervals
  do not touch. That is stricter than a test of the difference at the confidence of the margins.
- **`regressed`** becomes 1 if and only if the version is the platform's newest, the change is for the worse,
  it is beyond both margins, and |delta| is at least `regression.min_change`. Over a mean of 0 any rise is
  large enough, though there is no delta to send; a mean below 0 is not judged.
- **It stays 1** in the next answer, while the version is the newest, down to half of that: the change is
  still for the worse, |value − mean| > (margin of the value + margin of the mean) / 2, and |delta| is at
  least half of `regression.min_change`. A change that hovers about a limit would else end and raise the alert
  on its version again and again. Below half it is 0, until it becomes 1 anew.
- Every other version that has a value bears an explicit 0, the newest one without anything to compare it with
  included. So an alert on a version ends by data when the next version supersedes it.
- A metric for which nobody knows the direction that is worse has a `delta` and no `regressed`.

What the numbers cannot say, because Apple does not:

- The confidence level of a margin is not documented, so a flag has no p-value.
- A margin tells how well a value was measured, not how much versions usually differ from one another.
- Each version was measured on other people and devices, those who took it early or never left it. A
  difference between versions is a finding to look into, not yet the fault of the code.
- Dozens of comparisons are made at each release (metrics × devices × percentiles), many of them on the same
  people's data: expect false alarms among them. The margins and the least change are there to keep those few;
  a flag on a whole family of devices, at both percentiles, says more than one on a single model.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, hypot, inf, isclose, isfinite, ldexp
from typing import Literal, NamedTuple

Direction = Literal["higher", "lower"]
MIN_CHANGE = 0.05


class Measured(NamedTuple):
    """What a version measured, in any unit that value and margin share.

    `rank` is 0 for the platform's newest version, 1 for the one before, and so on. `value` is finite;
    `margin` is None where Apple sends none.
    """

    rank: int
    value: float
    margin: float | None


class Comparison(NamedTuple):
    """How the newest version compares: `delta` is a ratio, None where there is none to tell."""

    delta: float | None
    regressed: bool


def compare(
    measured: Sequence[Measured], worse: Direction | None, min_change: float, *, stood: bool
) -> Comparison:
    """The newest version against the mean of the others, by the rules at the top of this file.

    Args:
        measured: the versions of one metric, platform, device and percentile that have a value, each once.
        worse: the direction that is worse; None where nobody knows, and then nothing has regressed.
        min_change: the least |delta| of a regression, as a ratio.
        stood: the newest version's flag was 1 in the answer before; half of what raises it keeps it.
    """
    newest = next((item for item in measured if item.rank == 0), None)
    earlier = [item for item in measured if item.rank > 0]
    if newest is None or not earlier:
        return Comparison(None, False)
    mean = _mean([item.value for item in earlier])
    if mean < 0:
        return Comparison(None, False)
    delta = newest.value / mean - 1 if mean > 0 else inf
    change = newest.value - mean
    part = 0.5 if stood else 1.0
    regressed = (
        (change > 0 if worse == "higher" else change < 0 if worse == "lower" else False)
        and _exceeds(abs(change), part * _margin(newest, earlier))
        and _reaches(abs(delta), part * min_change)
    )
    return Comparison(delta if isfinite(delta) else None, regressed)


def _mean(values: Sequence[float]) -> float:
    try:
        return fsum(values) / len(values)
    except OverflowError:  # their sum is no double; their mean is
        halvings = len(values).bit_length()
        return ldexp(fsum(ldexp(value, -halvings) for value in values) / len(values), halvings)


def _margin(newest: Measured, earlier: Sequence[Measured]) -> float:
    """The margins of the newest value and of the mean, added."""
    known = [margin for item in (newest, *earlier) if (margin := _usable(item.margin)) is not None]
    otherwise = max(known, default=0.0)
    margins = [otherwise if (margin := _usable(item.margin)) is None else margin for item in earlier]
    own = _usable(newest.margin)
    return (otherwise if own is None else own) + hypot(*margins) / len(margins)


def _usable(margin: float | None) -> float | None:
    """A margin below zero, or one too large to be a number, tells as much as none."""
    return margin if margin is not None and 0 <= margin < inf else None


# What people write as 0.105 over 0.1 is in doubles a hair less than five per cent: numbers that agree to nine
# digits are taken as equal.
def _exceeds(change: float, margin: float) -> bool:
    return change > margin and not isclose(change, margin)


def _reaches(delta: float, min_change: float) -> bool:
    return delta >= min_change or isclose(delta, min_change)
