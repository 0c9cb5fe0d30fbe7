"""The API's refusals: one exception, the known rows of Google's error table, and their shapes on the wire."""

from dataclasses import dataclass, field
from typing import NamedTuple

from sandbox.google.codec import JsonDict, encode


class Known(NamedTuple):
    domain: str
    message: str
    location_type: str | None = None
    location: str | None = None


CATALOGUE: dict[tuple[int, str], Known] = {
    (400, "timeRangeEmpty"): Known("calendar", "The specified time range is empty.", "parameter", "timeMax"),
    (400, "invalid"): Known("global", "Invalid sync token value.", "parameter", "syncToken"),
    (400, "badRequest"): Known("global", "Bad Request"),
    (400, "required"): Known("global", "Required"),
    (400, "parseError"): Known("global", "Parse Error"),
    (400, "invalidParameter"): Known("global", "Invalid parameter."),
    (400, "syncTokenWithRequestRestrictions"): Known(
        "calendar", "Sync token cannot be used with other request restrictions.", "parameter", "syncToken"
    ),
    (400, "syncTokenWithNonDefaultOrdering"): Known(
        "calendar", "Sync token cannot be used with non-default ordering.", "parameter", "syncToken"
    ),
    (400, "pushNotSupportedForRequestedResource"): Known(
        "global", "Push notifications are not supported by this resource."
    ),
    (400, "cannotChangeOrganizerOfInstance"): Known(
        "calendar", "Cannot change the organizer of an instance.", "parameter", "eventId"
    ),
    (401, "authError"): Known("global", "Invalid Credentials", "header", "Authorization"),
    (401, "required"): Known("global", "Login Required", "header", "Authorization"),
    (403, "userRateLimitExceeded"): Known("usageLimits", "User Rate Limit Exceeded"),
    (403, "rateLimitExceeded"): Known("usageLimits", "Rate Limit Exceeded"),
    (403, "quotaExceeded"): Known("usageLimits", "Calendar usage limits exceeded."),
    (403, "dailyLimitExceeded"): Known("usageLimits", "Daily Limit Exceeded"),
    (403, "variableTermLimitExceeded"): Known("usageLimits", "Variable term limit exceeded."),
    (403, "forbiddenForNonOrganizer"): Known(
        "calendar", "Shared properties can only be changed by the organizer of the event."
    ),
    (403, "insufficientPermissions"): Known(
        "global", "Insufficient Permission: Request had insufficient authentication scopes."
    ),
    (403, "forbidden"): Known("global", "Forbidden"),
    (403, "requiredAccessLevel"): Known("global", "You need to have writer access to this calendar."),
    (403, "accessNotConfigured"): Known(
        "usageLimits",
        "Access Not Configured. Google Calendar API has not been used in this project or is disabled.",
    ),
    (403, "notACalendarUser"): Known("calendar", "The user must be signed up for Google Calendar."),
    (404, "notFound"): Known("global", "Not Found"),
    (409, "duplicate"): Known("global", "The requested identifier already exists."),
    (409, "conflict"): Known("global", "Conflict"),
    (410, "fullSyncRequired"): Known(
        "calendar", "Sync token is no longer valid, a full sync is required.", "parameter", "syncToken"
    ),
    (410, "updatedMinTooLongAgo"): Known(
        "calendar",
        "The requested minimum modification time lies too far in the past.",
        "parameter",
        "updatedMin",
    ),
    (410, "deleted"): Known("global", "Resource has been deleted"),
    (412, "conditionNotMet"): Known("global", "Precondition Failed", "header", "If-Match"),
    (429, "rateLimitExceeded"): Known("usageLimits", "Rate Limit Exceeded"),
    (500, "backendError"): Known("global", "Backend Error"),
    (502, "backendError"): Known("global", "Bad Gateway"),
    (503, "backendError"): Known("global", "Backend Error"),
    (504, "backendError"): Known("global", "Gateway Timeout"),
}

USUAL_REASON = {401: "authError", 404: "notFound", 410: "fullSyncRequired", 429: "rateLimitExceeded"}


@dataclass
class ApiError(Exception):
    """A refusal; what is not given comes from the catalogue row of its status and reason."""

    status: int
    reason: str
    message: str | None = None
    location: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def envelope(self) -> bytes:
        row = CATALOGUE.get((self.status, self.reason), Known("global", self.reason))
        message = self.message or row.message
        detail: JsonDict = {"domain": row.domain, "reason": self.reason, "message": message}
        if self.location is not None:
            detail |= {"locationType": "parameter", "location": self.location}
        elif row.location is not None:
            detail |= {"locationType": row.location_type, "location": row.location}
        return encode({"error": {"errors": [detail], "code": self.status, "message": message}})


def html_page(status: int, text: str) -> bytes:
    """What the front end in front of the API says when the API itself did not get the request."""
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Error {status}</title>"
        f"<p><b>{status}.</b> <ins>{text}</ins></html>"
    ).encode()
