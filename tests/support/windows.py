"""The judge of limits: it looks at when requests were made, and at nothing that made them."""

from collections.abc import Sequence


def fullest(moments: Sequence[float], length: float) -> int:
    """The most moments that any window of this length holds, both ends counted."""
    ordered, most, first = sorted(moments), 0, 0
    for last, moment in enumerate(ordered):
        while ordered[first] < moment - length:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """The most spans (begin, end) that overlap at any moment; one that ends as another begins does not."""
    now = most = 0
    for _, change in sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans]):
        now += change
        most = max(most, now)
    return most
