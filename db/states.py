"""Every state machine, as data: the states, the moves that are allowed, and nothing else.

Code moves a row by compare-and-set (`UPDATE … WHERE state = :seen`); the database refuses every other
move by a trigger whose condition was written from these tables (`refusal_trigger`). A test tries each
pair of states on a real row, so that the two never part. Diagrams: docs/state_machine.md.
"""

from enum import StrEnum


class UnitState(StrEnum):
    IDLE = "idle"
    """Waits until it is due."""
    DISPATCHED = "dispatched"
    """Claimed under a new fence; its message is on the way. Its lease is the time it may take to start."""
    RUNNING = "running"
    """A worker runs it and renews its lease."""
    PARKED = "parked"
    """Killed its worker again and again while run alone. A person releases it, or a run that tries it after a time."""


class AccountState(StrEnum):
    CONNECTED = "connected"
    """Works, as far as is known."""
    NEEDS_REAUTH = "needs_reauth"
    """The grant is gone; the tenant has to connect again. Rows stay, nothing is asked of the provider."""
    UNUSABLE = "unusable"
    """The account can never work as it is, for instance because it has no calendar service."""
    REMOVED = "removed"
    """Disconnected by a person. Its credentials are destroyed."""


class CalendarState(StrEnum):
    NEW = "new"
    """Never listed in full."""
    SYNCED = "synced"
    """Holds a cursor that covers its rows."""
    RESYNC = "resync"
    """The cursor is void; the next run lists everything. Survives failures of that listing."""
    CONFIRMING = "confirming"
    """A full listing was empty though rows exist; a second one decides."""
    LOST = "lost"
    """Not found or forbidden time after time. Rows stay; it is looked for once a day."""
    REMOVED = "removed"
    """Its account was disconnected. Its events are tombstones."""


class TaskStatus(StrEnum):
    """The seeds' words for a task."""

    PENDING = "pending"
    """Published, not begun."""
    PROCESSING = "processing"
    """A worker is at it."""
    COMPLETED = "completed"
    """Done; `result` says what."""
    FAILED = "failed"
    """Done, and nothing came of it; `error_log` says why."""
    SUPERSEDED = "superseded"
    """Never started or lost its worker; what it carried is due again."""
    SKIPPED = "skipped"
    """Not done, by the entry's policy or because there was nothing to do it for; `error_log` says why."""
    WAITING = "waiting"
    """Nobody works at it: it waits for a person, for an answer or for being resumed."""
    CANCELLED = "cancelled"
    """A person wanted it no more."""


class ProcessState(StrEnum):
    PENDING = "pending"
    """Waits for a worker."""
    RUNNING = "running"
    """A worker is at it and renews its lease."""
    WAITING = "waiting"
    """Asked a person something and waits for the answer, or for the question to expire."""
    PAUSED = "paused"
    """A person stopped it between two steps; what was done is kept."""
    COMPLETED = "completed"
    """Done; `result` says what."""
    FAILED = "failed"
    """Over, and nothing came of it; `error` says why."""
    CANCELLED = "cancelled"
    """A person wanted it no more."""


class QuestionState(StrEnum):
    OPEN = "open"
    """Waits for somebody to answer."""
    ANSWERED = "answered"
    """Somebody did, once."""
    EXPIRED = "expired"
    """Nobody did in time; the default answer stands, or the process failed."""
    WITHDRAWN = "withdrawn"
    """Its process is over, or the matter settled itself."""


Moves = frozenset[tuple[str, str]]

UNIT_MOVES: Moves = frozenset(
    {
        ("idle", "dispatched"),
        ("dispatched", "running"),
        ("dispatched", "idle"),
        ("running", "idle"),
        ("running", "dispatched"),
        ("running", "parked"),
        ("parked", "idle"),
        ("parked", "dispatched"),
    }
)
ACCOUNT_MOVES: Moves = frozenset(
    {
        ("connected", "needs_reauth"),
        ("connected", "unusable"),
        ("connected", "removed"),
        ("needs_reauth", "connected"),
        ("needs_reauth", "removed"),
        ("unusable", "connected"),
        ("unusable", "removed"),
    }
)
CALENDAR_MOVES: Moves = frozenset(
    {
        ("new", "synced"),
        ("new", "confirming"),
        ("new", "lost"),
        ("new", "removed"),
        ("synced", "resync"),
        ("synced", "confirming"),
        ("synced", "lost"),
        ("synced", "removed"),
        ("resync", "synced"),
        ("resync", "confirming"),
        ("resync", "lost"),
        ("resync", "removed"),
        ("confirming", "synced"),
        ("confirming", "resync"),
        ("confirming", "lost"),
        ("confirming", "removed"),
        ("lost", "resync"),
        ("lost", "synced"),
        ("lost", "confirming"),
        ("lost", "removed"),
    }
)
TASK_MOVES: Moves = frozenset(
    {
        ("pending", "processing"),
        ("pending", "superseded"),
        ("pending", "failed"),
        ("pending", "waiting"),
        ("pending", "cancelled"),
        ("processing", "completed"),
        ("processing", "failed"),
        ("processing", "superseded"),
        ("processing", "pending"),
        ("processing", "waiting"),
        ("processing", "cancelled"),
        ("waiting", "pending"),
        ("waiting", "failed"),
        ("waiting", "cancelled"),
    }
)
PROCESS_MOVES: Moves = frozenset(
    {
        ("pending", "running"),
        ("pending", "paused"),
        ("pending", "failed"),
        ("pending", "cancelled"),
        ("running", "pending"),
        ("running", "waiting"),
        ("running", "paused"),
        ("running", "completed"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("waiting", "pending"),
        ("waiting", "paused"),
        ("waiting", "completed"),
        ("waiting", "failed"),
        ("waiting", "cancelled"),
        ("paused", "pending"),
        ("paused", "failed"),
        ("paused", "cancelled"),
    }
)
QUESTION_MOVES: Moves = frozenset({("open", "answered"), ("open", "expired"), ("open", "withdrawn")})

MACHINES: dict[tuple[str, str], tuple[type[StrEnum], Moves]] = {
    ("sync.units", "state"): (UnitState, UNIT_MOVES),
    ("sync.accounts", "state"): (AccountState, ACCOUNT_MOVES),
    ("sync.calendars", "state"): (CalendarState, CALENDAR_MOVES),
    ("worker.tasks", "status"): (TaskStatus, TASK_MOVES),
    ("process.processes", "state"): (ProcessState, PROCESS_MOVES),
    ("process.questions", "state"): (QuestionState, QUESTION_MOVES),
}


def refusal_trigger(table: str, column: str, moves: Moves) -> str:
    """The DDL of the trigger that refuses a move not in `moves`; a migration freezes its text.

    The pairs stand in the trigger's WHEN clause and not in a lookup table, because a unit moves three
    times a run: the clause costs a comparison, a lookup a function call and an index probe.
    """
    pairs = ", ".join(f"('{old}', '{new}')" for old, new in sorted(moves))
    name = f"{table.split('.')[1]}_{column}_moves"
    return (
        f"create trigger {name} before update of {column} on {table} for each row "
        f"when (old.{column} is distinct from new.{column} "
        f"and (old.{column}::text, new.{column}::text) not in ({pairs})) "
        f"execute function worker.refuse_move('{column}')"
    )
