"""Google's answers other than 200, by status and reason.

Google distinguishes by `error.errors[0].reason`, not by status alone: a 403 may be a quota, a lost grant
or an API that nobody enabled. Source: the Calendar API's error guide, plus what it leaves out and field
reports agree on (400 `invalid` for a garbled sync token; 410 `deleted` is no resync).
"""

import re
from typing import Any

import orjson

from tenantsync.errors import (
    AccountUnusable,
    CalendarUnavailable,
    CursorVoid,
    GrantRevoked,
    OperatorFault,
    RateLimited,
    Refused,
    SyncError,
    Transient,
)
from tenantsync.headers import RATE_PAUSE, retry_after
from tenantsync.outbound import Answer

QUOTA_PAUSE = 900.0  # seconds; "Calendar usage limits exceeded" lasts minutes to hours

_RATE = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_QUOTA = frozenset({"quotaExceeded", "dailyLimitExceeded", "variableTermLimitExceeded"})
_CALENDAR_FORBIDDEN = frozenset(
    {"forbidden", "requiredAccessLevel", "insufficientPermissions", "forbiddenForNonOrganizer"}
)
_REASON = re.compile(r"[A-Za-z_]{1,50}")
_INVALID_TOKEN = "Invalid sync token value."  # noqa: S105 — Google's message, no secret


def reason_of(body: bytes) -> tuple[str, str]:
    """(reason, message) of Google's error envelope; empty for HTML, cut JSON, and a reason that is no identifier:
    reasons go into the ledger and the log, where nothing may stand that a provider made up."""
    try:
        error: Any = orjson.loads(body)["error"]
        first = error["errors"][0]
        reason = str(first.get("reason", ""))
        return reason if _REASON.fullmatch(reason) else "", str(first.get("message", ""))
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""


def classify(answer: Answer, *, with_cursor: bool) -> SyncError:
    """The SyncError for an answer that is not 200. `with_cursor`: the request carried a sync token."""
    reason, message = reason_of(answer.body)
    wait = retry_after(answer.headers.get("Retry-After"))
    match answer.status:
        case 400 if with_cursor and reason == "invalid" and message == _INVALID_TOKEN:
            return CursorVoid("invalid_sync_token")
        case 400:
            return Refused(reason or "http_400", "Google refuses the request itself")
        case 401:
            return GrantRevoked("authError", "the access token was refused twice")
        case 403:
            return _forbidden(reason, wait)
        case 404:
            return CalendarUnavailable("notFound", "the calendar does not exist or is not shared any more")
        case 410 if reason == "deleted":
            return CalendarUnavailable("deleted", "the calendar was deleted", gone=True)
        case 410 if with_cursor:
            return CursorVoid(reason if reason in ("fullSyncRequired", "updatedMinTooLongAgo") else "http_410")
        case 429:
            return RateLimited(reason or "http_429", retry_after=wait or RATE_PAUSE, given=bool(wait))
        case status if status >= 500 and wait:
            return RateLimited(f"http_{status}", retry_after=wait)
        case status if 300 <= status < 400:
            return Transient("redirected", "a redirect, which is never followed with a token")
        case status if status >= 500 or status in (408, 410, 425):
            return Transient(f"http_{status}", "Google has trouble")
        case status:
            return Refused(f"http_{status}", "an answer that Google does not document")


def _forbidden(reason: str, wait: float | None) -> SyncError:
    if reason in _RATE:
        return RateLimited(reason, retry_after=wait or RATE_PAUSE, given=bool(wait))
    if reason in _QUOTA:
        return RateLimited(reason, retry_after=max(wait or 0.0, QUOTA_PAUSE), given=bool(wait))
    if reason == "accessNotConfigured":
        return OperatorFault(reason, "the Calendar API is not enabled in the operator's Google project")
    if reason == "notACalendarUser":
        return AccountUnusable(reason, "the account has no Google Calendar")
    if reason in _CALENDAR_FORBIDDEN:
        return CalendarUnavailable(reason, "the account may not read this calendar")
    return Transient("http_403", "a 403 without a reason that Google documents")
