"""The protocol that keeps work from being lost or doubled, as small pure steps: the rows of Postgres that decide.

Each function is one statement of `db/repositories`: it gives the row as the statement leaves it, or None where
the statement changes nothing. The explorer of `tests/model` composes them into every interleaving; the replay of
`sandbox/tracecheck.py` holds real runs against them. Time is no number here: a lease is live until it is over.
"""

from typing import NamedTuple


class Guards(NamedTuple):
    """What the protocol rests on. The model is explored with all of them, and with each one taken away."""

    fence_at_commit: bool = True
    """A run writes only while the unit still bears its fence."""
    lease_is_waited_for: bool = True
    """A unit that is dispatched or runs is claimed anew only when its lease is over."""
    leases_end: bool = True
    """A lease that nobody renews comes to an end."""
    outbox_with_rows: bool = True
    """Outbox entries commit in the transaction of their rows."""
    cursor_with_rows: bool = True
    """So does the cursor."""
    wake_up_consumed_first: bool = True
    """A sender consumes the wake-up with its lease, before it reads, and not when it gives the tenant back."""
    acknowledged_to_sent: bool = True
    """An outbox entry is forgotten only up to the version that was sent."""
    newest_wins: bool = True
    """Supabase never lets a version give way to an older one."""
    one_row_a_tick: bool = True
    """An occurrence is unique by entry and tick."""
    attempt_at_end: bool = True
    """An occurrence is ended only by the attempt that has it."""


ALL = Guards()

IDLE, DISPATCHED, RUNNING = "idle", "dispatched", "running"
NONE, LIVE, OVER = "none", "live", "over"


class Unit(NamedTuple):
    """sync.units: who may run it. Parked units are idle here: nobody holds them."""

    state: str = IDLE
    fence: int = 0
    lease: str = NONE


def claim(unit: Unit, fence: int, guards: Guards = ALL) -> Unit | None:
    """CLAIM. A suspect goes by way of idle into the quarantine lane, which is the same here."""
    if unit.lease == LIVE and guards.lease_is_waited_for:
        return None
    return Unit(DISPATCHED, fence, LIVE)


def start(unit: Unit, fence: int) -> Unit | None:
    """START, for one unit of the message."""
    return Unit(RUNNING, fence, LIVE) if unit.state == DISPATCHED and unit.fence == fence else None


def hold(unit: Unit, fence: int, guards: Guards = ALL) -> Unit | None:
    """TAKE_FENCE and RENEW: the lease begins anew if the fence still stands."""
    if not guards.fence_at_commit:
        return unit
    return unit._replace(lease=LIVE) if unit.state == RUNNING and unit.fence == fence else None


def finish(unit: Unit, fence: int, guards: Guards = ALL) -> Unit | None:
    """FINISH and HAND_BACK of a run."""
    if (unit.state == RUNNING and unit.fence == fence) or not guards.fence_at_commit:
        return Unit(IDLE, unit.fence, NONE)
    return None


def hand_back(unit: Unit, fence: int) -> Unit | None:
    """HAND_BACK, which takes units that were not started as well."""
    return Unit(IDLE, fence, NONE) if unit.fence == fence and unit.state != IDLE else None


def lease_ends(unit: Unit, guards: Guards = ALL) -> Unit | None:
    """Time passes."""
    return unit._replace(lease=OVER) if unit.lease == LIVE and guards.leases_end else None


class Turn(NamedTuple):
    """mirror.turns: who sends a tenant's rows. `mark` stands for lease_until, which tells one lease from the next."""

    awake: bool = False
    mark: int = 0
    lease: str = NONE


def lease_turn(turn: Turn, mark: int, guards: Guards = ALL) -> Turn | None:
    """LEASE: `ready_at` stands at the lease's end, so one that is over is a wake-up too."""
    if turn.lease == LIVE or not (turn.awake or turn.lease == OVER):
        return None
    return Turn(awake=turn.awake and not guards.wake_up_consumed_first, mark=mark, lease=LIVE)


def wake(turn: Turn) -> Turn:
    """WAKE_MIRROR, in the transaction of the rows."""
    return turn._replace(awake=True)


def renew_turn(turn: Turn, mark: int, new: int) -> Turn | None:
    """RENEW of the outbox: a wake-up that came meanwhile stays."""
    return turn._replace(mark=new, lease=LIVE) if turn.mark == mark and turn.lease != NONE else None


def release_turn(turn: Turn, mark: int, *, left: bool, guards: Guards = ALL) -> Turn | None:
    """RELEASE. `left`: whether entries were waiting when the statement began, which is not when it got the row."""
    if turn.mark != mark or turn.lease == NONE:
        return None
    return Turn(awake=left or (turn.awake and guards.wake_up_consumed_first), mark=mark, lease=NONE)


def turn_ends(turn: Turn, guards: Guards = ALL) -> Turn | None:
    """Time passes."""
    return turn._replace(lease=OVER) if turn.lease == LIVE and guards.leases_end else None


def acknowledge(waiting: int, sent: int, guards: Guards = ALL) -> int:
    """ACKNOWLEDGE: the version that still waits, 0 for none."""
    return 0 if waiting <= sent or not guards.acknowledged_to_sent else waiting


def wins(stored: int, version: int, guards: Guards = ALL) -> bool:
    """Whether Supabase lets this version in (mirror_apply)."""
    return version > stored or not guards.newest_wins


PLANNED, BEGUN, ENDED = "planned", "begun", "ended"


class Occurrence(NamedTuple):
    """A periodic job's row in worker.tasks. `assigned`: a worker has begun it since it was last sent."""

    state: str = PLANNED
    attempt: int = 0
    lease: str = NONE
    assigned: bool = False


def send(row: Occurrence) -> Occurrence | None:
    """NEXT: what nobody is at is sent, and sent again when its lease is over."""
    return row._replace(lease=LIVE, assigned=False) if row.state != ENDED and row.lease != LIVE else None


def begin(row: Occurrence) -> Occurrence | None:
    """BEGIN: whoever begins has the next attempt; one that a worker is at is left alone."""
    free = row.state == PLANNED or (row.state == BEGUN and (not row.assigned or row.lease == OVER))
    return Occurrence(BEGUN, row.attempt + 1, LIVE, assigned=True) if free else None


def keep(row: Occurrence, attempt: int) -> Occurrence | None:
    """RENEW."""
    mine = row.state == BEGUN and row.attempt == attempt
    return row._replace(lease=LIVE, assigned=True) if mine else None


def end(row: Occurrence, attempt: int, guards: Guards = ALL) -> Occurrence | None:
    """END: the attempt that has it ends it."""
    mine = row.state == BEGUN and row.attempt == attempt
    return Occurrence(ENDED, row.attempt) if mine or not guards.attempt_at_end else None


def attempt_ends(row: Occurrence, guards: Guards = ALL) -> Occurrence | None:
    """Time passes."""
    return row._replace(lease=OVER) if row.lease == LIVE and guards.leases_end else None
