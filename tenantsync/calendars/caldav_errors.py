"""What an answer other than 207 means at a CalDAV server (RFC 4791, RFC 6578)."""

from tenantsync.calendars import caldav_xml
from tenantsync.calendars.caldav_xml import DAV
from tenantsync.errors import (
    CalendarUnavailable,
    CursorVoid,
    GrantRevoked,
    RateLimited,
    Refused,
    SyncError,
    Transient,
)
from tenantsync.headers import RATE_PAUSE, retry_after
from tenantsync.outbound import Answer

_TOKEN_REFUSALS = frozenset({403, 409, 412, 500, 507})


def classify(answer: Answer, *, with_token: bool) -> SyncError:
    """The SyncError for an answer other than 207.

    A refused token comes as 403, 409, 412 or 500, depending on the server; the body's
    `DAV:valid-sync-token` tells it from a lost right.
    """
    status = answer.status
    if with_token and status in _TOKEN_REFUSALS and _names(answer, "valid-sync-token"):
        return CursorVoid("invalid_sync_token")
    if with_token and (status in (405, 501) or _names(answer, "supported-report")):
        return CursorVoid("sync_collection_gone")  # a server that was replaced or turned it off; the ladder goes on
    wait = retry_after(answer.headers.get("Retry-After"))
    if status == 401:
        return GrantRevoked("unauthorized", "the server refuses the name or the password")
    if status == 403:
        return CalendarUnavailable("forbidden", "the account may not read this calendar")
    if status in (404, 410):
        return CalendarUnavailable(f"http_{status}", "the calendar does not exist", gone=status == 410)
    if status == 429 or (status in (503, 507) and wait):
        return RateLimited(f"http_{status}", retry_after=wait or RATE_PAUSE, given=bool(wait))
    if 300 <= status < 400:
        return Transient("redirected", "a redirect, which is never followed with a password")
    if status >= 500 or status in (200, 408, 412, 409, 418, 423, 425):
        return Transient(f"http_{status}", "the server has trouble, or is no CalDAV server")
    return Refused(f"http_{status}", "the server refuses the request itself")


def _names(answer: Answer, condition: str) -> bool:
    return caldav_xml.names_condition(answer.body, DAV + condition)
