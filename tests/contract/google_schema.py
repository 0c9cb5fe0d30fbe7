"""The discovery document as JSON Schema, what it cannot say as invariants, and a client that checks both."""

import json
import ssl
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import httpx
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs are installed

from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo

Json = dict[str, Any]

ANN = "ann@example.test"
EVENTS = "calendars/primary/events"
MEETING: Json = {
    "summary": "Planning",
    "start": {"dateTime": "2026-12-01T10:00:00+01:00", "timeZone": "Europe/Berlin"},
    "end": {"dateTime": "2026-12-01T11:00:00+01:00", "timeZone": "Europe/Berlin"},
}
WEEKLY: Json = MEETING | {"summary": "Stand-up", "recurrence": ["RRULE:FREQ=WEEKLY;BYDAY=TU"]}
DAILY_ALL_DAY: Json = {
    "summary": "On call",
    "start": {"date": "2026-12-01"},
    "end": {"date": "2026-12-02"},
    "recurrence": ["RRULE:FREQ=DAILY;COUNT=5"],
}

STATUSES = {"confirmed", "tentative", "cancelled"}
_KEPT_FORMATS = {"date", "date-time"}


def converted(node: Json) -> Json:
    """One discovery schema as JSON Schema, strict: a field that the document does not know is an error."""
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref']}"}
    if node.get("type") == "any":
        return {}
    if node.get("type") == "array":
        return {"type": "array", "items": converted(node["items"])}
    if node.get("type") == "object":
        extra = node.get("additionalProperties")
        fields = {name: converted(each) for name, each in node.get("properties", {}).items()}
        return {
            "type": "object",
            "properties": fields,
            "additionalProperties": converted(extra) if extra else False,
        }
    return {"type": node["type"]} | _limits(node)


def _limits(node: Json) -> Json:
    limits: Json = {"enum": node["enum"]} if "enum" in node else {}
    if node.get("format") in {"int64", "uint64"}:
        limits["pattern"] = r"^-?\d+$"
    if node.get("format") in _KEPT_FORMATS:
        limits["format"] = node["format"]
    return limits


@cache
def validator(schema: str) -> Draft202012Validator:
    package = resources.files("googleapiclient.discovery_cache.documents")
    document = json.loads((package / "calendar.v3.json").read_bytes())
    definitions = {name: converted(node) for name, node in document["schemas"].items()}
    return Draft202012Validator(
        {"$ref": f"#/$defs/{schema}", "$defs": definitions},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def check_event(event: Json) -> None:
    assert event["id"]
    assert event["status"] in STATUSES
    assert ("recurringEventId" in event) == ("originalStartTime" in event)
    if "recurringEventId" in event:
        assert "recurrence" not in event
    if event["status"] != "cancelled":
        assert event["start"]
        assert event["end"]


def check_list(body: Json, *, token: bool = True) -> None:
    """`token`: whether the query is one that ends with a sync token."""
    tokens = [name for name in ("nextPageToken", "nextSyncToken") if body.get(name)]
    assert len(tokens) == 1 if token else tokens in ([], ["nextPageToken"])


def reason(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["errors"][0]["reason"]


def grant_of(google: GoogleControl, info: AccountInfo) -> dict[str, str]:
    ours = google.behaviour()
    return {
        "grant_type": "refresh_token",
        "client_id": ours.client_id,
        "client_secret": ours.client_secret,
        "refresh_token": info.refresh_token,
    }


class CheckedClient:
    """Asks as one account; every 2xx body must fit the schema and the invariants before a test sees it."""

    def __init__(self, api_endpoint: str, access_token: str) -> None:
        self.http = httpx.Client(
            base_url=api_endpoint,
            headers={"Authorization": f"Bearer {access_token}"},
            timeout=10,
            trust_env=False,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    def ask(
        self,
        method: str,
        path: str,
        params: Json | None = None,
        *,
        schema: str,
        body: Json | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        response = self.http.request(method, path, params=params, json=body, headers=headers)
        if response.is_success and response.content:
            validator(schema).validate(response.json())
            if schema == "Event":
                check_event(response.json())
        return response

    def close(self) -> None:
        self.http.close()

    def list(self, calendar: str, *, token: bool = True, **params: Any) -> httpx.Response:
        response = self.ask("GET", f"calendars/{calendar}/events", params, schema="Events")
        if response.is_success:
            check_list(response.json(), token=token)
            for event in response.json().get("items", []):
                check_event(event)
        return response

    def pages(self, calendar: str, *, token: bool = True, **params: Any) -> Iterator[Json]:
        """Every page repeats the query and adds the page token."""
        page = self.list(calendar, token=token, **params).json()
        yield page
        while "nextPageToken" in page:
            page = self.list(calendar, token=token, **params, pageToken=page["nextPageToken"]).json()
            yield page

    def all(self, calendar: str, **params: Any) -> tuple[Json, str]:
        """Items by id in the order they came, and the sync token."""
        items: Json = {}
        for page in self.pages(calendar, **params):
            items |= {item["id"]: item for item in page.get("items", [])}
        return items, page["nextSyncToken"]


class Reader:
    """Follows a calendar as our sync must: nothing counts before the last page, then all of it at once."""

    def __init__(self, client: CheckedClient, calendar: str, size: int) -> None:
        self.state: Json = {}
        self._client = client
        self._calendar = calendar
        self._params: Json = {"maxResults": size, "showDeleted": "true"}
        self._pending: list[Json] = []
        self._sync_token: str | None = None
        self._page_token: str | None = None

    def read_page(self) -> bool:
        """Whether it was the last one."""
        tokens = {"syncToken": self._sync_token, "pageToken": self._page_token}
        asked = self._params | {key: value for key, value in tokens.items() if value is not None}
        answer = self._client.list(self._calendar, **asked)
        if answer.status_code == 410:
            self._start_over()
            return False
        page = answer.json()
        self._pending += page["items"]
        self._page_token = page.get("nextPageToken")
        if self._page_token is None:
            self._apply()
            self._sync_token = page["nextSyncToken"]
        return self._page_token is None

    def catch_up(self) -> None:
        while not self.read_page():
            pass

    def _start_over(self) -> None:
        self.state, self._pending = {}, []
        self._sync_token = self._page_token = None

    def _apply(self) -> None:
        for item in self._pending:
            if item["status"] == "cancelled" and "recurringEventId" not in item:
                self._drop(item["id"])
            else:
                self.state[item["id"]] = item
        self._pending = []
        self._drop_stubs_without_series()

    def _drop_stubs_without_series(self) -> None:
        """A cancelled instance counts for the lifetime of its series; the series may come later in the list."""
        self.state = {
            key: item
            for key, item in self.state.items()
            if item["status"] != "cancelled" or item["recurringEventId"] in self.state
        }

    def _drop(self, event_id: str) -> None:
        self.state = {
            key: item
            for key, item in self.state.items()
            if key != event_id and item.get("recurringEventId") != event_id
        }
