"""What follows from what: delays, and the consequences of each kind of failure. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from config.settings import Settings
from db.states import AccountState, CalendarState
from tenantsync.errors import (
    AccountUnusable,
    CalendarUnavailable,
    GrantRevoked,
    OperatorFault,
    RateLimited,
    Refused,
    SyncError,
)

JITTER = 0.1
"""Delays are spread by this share to either side, so that a fleet started at once does not stay in step."""
LOST_AFTER = 3
"""A calendar that is missing or forbidden this often in a row is lost."""
LOST_RECHECK = timedelta(days=1)
REVOKED_RECHECK = timedelta(days=1)
"""Nothing is asked of the provider then either; reconnecting the account makes its calendars due at once."""
OPERATOR_PAUSE = timedelta(minutes=5)
ROWS_A_CALL = 500
"""Rows that cost as much as a request: to parse and to write them takes the time of a quiet run of a batch."""
MEMORY_LIMIT = 2500
"""Rows that a run in the sync lane collects; a larger answer belongs to the bulk lane, which stages its pages."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A scope to close, because the provider said so. `scope_id` is filled in by who knows it.

    `given`: whether the provider named the time; if not, it doubles with every closing.
    """

    scope: str
    seconds: float
    reason: str
    given: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means for the calendar, its account, and everybody else."""

    delay: float
    """Seconds until the calendar is due again."""
    error: str
    blamed: bool
    """Whether it counts towards the calendar's backoff."""
    state: CalendarState | None = None
    account_state: AccountState | None = None
    closed: Closed | None = None
    alarm: bool = False
    """Whether an operator has to act."""


def spread(seconds: float, chance: float) -> float:
    """The delay, moved by up to JITTER to either side; `chance` is uniform in [0, 1)."""
    return seconds * (1 - JITTER + 2 * JITTER * chance)


def later(seconds: float, chance: float) -> float:
    """The delay, lengthened by up to JITTER: never earlier than told."""
    return spread(seconds, chance / 2 + 0.5)


def backoff(failures: int, settings: Settings, chance: float) -> float:
    """Seconds until the next try after `failures` failures in a row (1 or more).

    First WORKER_MAX_RETRIES quick retries, doubling from WORKER_RETRY_DELAY; then slow ones, doubling
    from SYNC_INTERVAL; never a shorter wait than the one before, never more than SYNC_RETRY_CEILING.
    """
    quick = settings.worker_max_retries
    base = settings.worker_retry_delay.total_seconds() * 2.0 ** (min(failures, quick) - 1)
    if failures > quick:
        base = max(base, settings.sync_interval.total_seconds() * 2.0 ** min(failures - quick - 1, 20))
    return spread(min(base, settings.sync_retry_ceiling.total_seconds() / (1 + JITTER)), chance)


def judge(error: SyncError, *, failures: int, settings: Settings, chance: float) -> Verdict:
    """What to do about an error. `failures`: failures in a row before this one."""
    text = str(error)
    again = backoff(failures + 1, settings, chance)
    match error:
        case RateLimited():
            closed = Closed(error.scope, error.retry_after, error.reason, error.given)
            return Verdict(later(error.retry_after, chance), text, blamed=False, closed=closed)
        case GrantRevoked():
            return Verdict(REVOKED_RECHECK.total_seconds(), text, blamed=True, account_state=AccountState.NEEDS_REAUTH)
        case AccountUnusable():
            return Verdict(REVOKED_RECHECK.total_seconds(), text, blamed=True, account_state=AccountState.UNUSABLE)
        case OperatorFault():
            pause = OPERATOR_PAUSE.total_seconds()
            return Verdict(
                later(pause, chance),
                text,
                blamed=False,
                closed=Closed(error.scope, pause, error.reason),
                alarm=True,
            )
        case CalendarUnavailable() if error.gone or failures + 1 >= LOST_AFTER:
            return Verdict(LOST_RECHECK.total_seconds(), text, blamed=True, state=CalendarState.LOST)
        case Refused():
            slow = backoff(settings.worker_max_retries + failures + 1, settings, chance)
            return Verdict(slow, text, blamed=True, alarm=error.reason.startswith("http_4"))
        case _:
            return Verdict(again, text, blamed=True)


def cost(*, calls: int, seconds: float, rows: int) -> float:
    """What a run cost, in quiet runs of one request: more requests, time beyond a second, rows to parse and write."""
    return max(1, calls) + max(0.0, seconds - 1) + rows / ROWS_A_CALL


def rest(
    *,
    attempted: bool,
    success: bool,
    account_state: str,
    state: CalendarState | None,
    verdict: Verdict | None,
    cause: str | None,
) -> str | None:
    """Why a calendar waits longer than its interval after this run; None where it does not.

    `state`: what the run moved it to. `cause`: why it was not asked, where that is not the account's state.
    """
    if success:
        return None
    if verdict is None:
        waits = cause if account_state == AccountState.CONNECTED else account_state
        return waits if not attempted or state is None else str(state)
    if verdict.account_state is not None:
        return str(verdict.account_state)
    if verdict.state is not None:
        return str(verdict.state)
    if verdict.closed is not None:
        return "cooldown"
    return "backoff" if verdict.blamed else "budget"


def starts_over(
    *,
    state: str,
    cursor: str | None,
    query_version: int | None,
    current_version: int,
    listed_at: datetime | None,
    relist_after: timedelta | None,
    now: datetime,
    chance: float,
) -> bool:
    """Whether the next run lists everything instead of asking what changed.

    A cursor made by another query version is not used. Providers that forget deletions are listed anew
    from time to time, spread over a tenth of that time so that a fleet does not do so in one night.
    """
    if cursor is None or query_version != current_version or state != CalendarState.SYNCED:
        return True
    if relist_after is None or listed_at is None:
        return False
    return now - listed_at > timedelta(seconds=spread(relist_after.total_seconds(), chance))


def awaits_confirmation(*, state: str, full: bool, named: int, event_count: int) -> bool:
    """Whether an empty full listing must be seen twice: `named` resources listed, `event_count` rows held."""
    return full and named == 0 and event_count > 0 and state != CalendarState.CONFIRMING
