"""The product's own Celery app without fences, budgets and accounting: what `quiet` measures them against.

Only for that. The statements are the product's with the guarded parts cut out; where one of them has changed
so that the cut no longer fits, importing this fails and says which.
"""

from collections.abc import Sequence

from sqlalchemy import TextClause, text

from db.repositories import units
from db.repositories.units import StartedUnit
from tenantsync.calendars import admission
from tenantsync.calendars.admission import Admitted
from tenantsync.limits import service as limits
from tenantsync.limits.book import Grants

FENCED_START = """
  select u.unit_id, u.wanted from sync.units u join mine m using (unit_id)
   where u.fence = m.fence and u.state = 'dispatched' order by u.unit_id for no key update of u"""
FENCED_FINISH = "where u.fence = f.fence and u.state = 'running' order by u.unit_id for no key update of u"
SLOTS_BEGIN, SLOTS_END = "case when f.outcome = 'moved'", "end as slots"
ENTRIES_BEGIN, ENTRIES_END = "      owed = case", "    from due where u.unit_id = due.unit_id"


def _cut(statement: TextClause, *cuts: tuple[str, str, str]) -> TextClause:
    """The statement with what lies from `begin` up to `end` replaced, for each cut."""
    body = statement.text
    for begin, end, instead in cuts:
        before, found, rest = body.partition(begin)
        left, closed, after = rest.partition(end) if end else ("", "yes", rest)
        if not found or not closed or len(left) > 2500:
            raise RuntimeError(f"benchmarks/unguarded.py: the statement no longer has {begin.strip()!r}")
        body = before + instead + after
    return text(body)


class _Free:
    """A permit that costs nothing."""

    async def spend(self) -> None: ...

    def end(self) -> None: ...


async def _permit(*_: object) -> _Free:
    return _Free()


def _admit(_database: object, _allowances: object, started: Sequence[StartedUnit], **_: object) -> Admitted:
    return Admitted(started, {}, Grants(0.0, {}, {}))


units.START = _cut(
    units.START, (FENCED_START, "", "\n  select u.unit_id, u.wanted from sync.units u join mine m using (unit_id)")
)
units.FINISH = _cut(
    units.FINISH,
    (FENCED_FINISH, "", "where true"),
    (SLOTS_BEGIN, SLOTS_END, "0 as slots"),
    (ENTRIES_BEGIN, ENTRIES_END, "      rest = null\n" + ENTRIES_END),
)
admission.admit = _admit  # type: ignore[assignment]
limits.Allowance.permit = _permit  # type: ignore[method-assign, assignment]

from tasks import app  # noqa: E402 — after the cuts

__all__ = ["app"]
