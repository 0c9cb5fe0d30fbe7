"""The control API's client, for demos, gardeners and tests."""

import ssl
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from sandbox.google.codec import JsonDict, encode
from sandbox.google.specs import (
    AccessRole,
    AccountInfo,
    Behaviour,
    Counters,
    Edit,
    Fault,
    FleetSpec,
    LoggedRequest,
    Poison,
    SeedSpec,
)


class ControlRefusedError(Exception):
    """The stand-in did not do it; the text says why."""


class GoogleControl:
    def __init__(self, base_url: str, *, timeout: float = 120.0) -> None:
        self.base_url = base_url.rstrip("/")
        # Plain HTTP only: without this, httpx would spend 20 ms per client on reading certificates.
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout, trust_env=False, verify=bare)

    @property
    def api_endpoint(self) -> str:
        """What GOOGLE_API_ENDPOINT and the official client's `api_endpoint` take."""
        return f"{self.base_url}/calendar/v3/"

    @property
    def token_uri(self) -> str:
        return f"{self.base_url}/token"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # The server

    def reset(self, *, seed: int | None = None) -> None:
        self._call("reset", seed=seed)

    def behaviour(self) -> Behaviour:
        return Behaviour.model_validate(self._call("behaviour"))

    def configure(self, **changes: object) -> Behaviour:
        """Changes the named settings of `Behaviour`; a nested `quota` is replaced as a whole."""
        return Behaviour.model_validate(self._call("configure", changes=changes))

    def hold_clock(self, at: datetime | None = None) -> int:
        """The clock stands still from now on, at `at` or where it is. Milliseconds."""
        return int(self._call("hold_clock", at=at)["now_ms"])

    def release_clock(self) -> None:
        self._call("release_clock")

    def advance_clock(self, seconds: float) -> int:
        return int(self._call("advance_clock", seconds=seconds)["now_ms"])

    def now_ms(self) -> int:
        return int(self._call("clock")["now_ms"])

    # Accounts and calendars

    def create_account(self, email: str, *, refresh_token: str | None = None) -> AccountInfo:
        """With its primary calendar, which is named like itself, and an access token ready for use."""
        return AccountInfo.model_validate(self._call("create_account", email=email, refresh_token=refresh_token))

    def create_calendar(
        self,
        account: str,
        calendar: str,
        *,
        summary: str | None = None,
        time_zone: str = "Europe/Berlin",
        access_role: AccessRole = "owner",
        hidden: bool = False,
        selected: bool = True,
        reports_deletions: bool = True,
    ) -> None:
        """Without `reports_deletions` a delta never has tombstones, as in some birthday calendars."""
        self._call(
            "create_calendar",
            account=account,
            calendar=calendar,
            summary=summary,
            time_zone=time_zone,
            access_role=access_role,
            hidden=hidden,
            selected=selected,
            reports_deletions=reports_deletions,
        )

    def update_calendar(self, account: str, calendar: str, **changes: object) -> None:
        """summary, description, time_zone, access_role, selected, hidden, summary_override, color_id, …"""
        self._call("update_calendar", account=account, calendar=calendar, changes=changes)

    def remove_calendar(self, account: str, calendar: str) -> None:
        self._call("remove_calendar", account=account, calendar=calendar)

    def restore_calendar(self, account: str, calendar: str) -> None:
        """Subscribed again, with the events that it had."""
        self._call("restore_calendar", account=account, calendar=calendar)

    def revoke_grant(self, account: str) -> None:
        """Refreshing answers invalid_grant, and every access token of the account is dead at once."""
        self._call("revoke_grant", account=account)

    def restore_grant(self, account: str) -> None:
        self._call("restore_grant", account=account)

    def issue_access_token(self, account: str, *, ttl_s: float = 3600.0) -> str:
        return str(self._call("issue_access_token", account=account, ttl_s=ttl_s))

    def expire_access_tokens(self, account: str | None = None) -> int:
        return int(self._call("expire_access_tokens", account=account))

    # Events

    def seed(self, account: str, calendar: str, spec: SeedSpec) -> int:
        """How many rows were written, exceptions and tombstones included."""
        return int(self._call("seed", account=account, calendar=calendar, spec=spec))

    def seed_events(
        self, account: str, calendar: str, events: Iterable[Mapping[str, Any]], *, raw: bool = False
    ) -> list[str]:
        """Explicit bodies, unchecked; `raw` stores them as they are but for an id and an etag."""
        bodies = [dict(event) for event in events]
        ids: list[str] = self._call("seed_events", account=account, calendar=calendar, events=bodies, raw=raw)
        return ids

    def seed_fleet(self, spec: FleetSpec) -> list[AccountInfo]:
        return [AccountInfo.model_validate(info) for info in self._call("seed_fleet", spec=spec)]

    def add_poison(self, account: str, calendar: str, kind: Poison) -> str:
        return str(self._call("add_poison", account=account, calendar=calendar, kind=kind))

    def apply(self, edits: Iterable[Edit]) -> list[JsonDict | None]:
        """In one request and in order; what an edit leaves behind, or None for a deletion."""
        done: list[JsonDict | None] = self._call("apply", edits=list(edits))
        return done

    def churn(self, edits: int, *, account: str | None = None, calendar: str | None = None) -> int:
        """Random edits over the matching calendars; how many were possible."""
        return int(self._call("churn", edits=edits, account=account, calendar=calendar))

    def insert(self, account: str, calendar: str, body: Mapping[str, Any]) -> JsonDict:
        return self._edit(Edit(kind="insert", account=account, calendar=calendar, body=dict(body)))

    def patch(self, account: str, calendar: str, event: str, body: Mapping[str, Any]) -> JsonDict:
        return self._edit(Edit(kind="patch", account=account, calendar=calendar, event=event, body=dict(body)))

    def delete(self, account: str, calendar: str, event: str) -> None:
        self.apply([Edit(kind="delete", account=account, calendar=calendar, event=event)])

    def restore(self, account: str, calendar: str, event: str) -> JsonDict:
        return self._edit(Edit(kind="restore", account=account, calendar=calendar, event=event))

    def move(self, account: str, calendar: str, event: str, *, destination: str) -> JsonDict:
        return self._edit(Edit(kind="move", account=account, calendar=calendar, event=event, destination=destination))

    def cancel_instance(self, account: str, calendar: str, master: str, original_start: str) -> None:
        """`original_start`: a date, an instant with its offset, the instance's id, or the id's last part."""
        edit = Edit(
            kind="cancel_instance",
            account=account,
            calendar=calendar,
            event=master,
            original_start=original_start,
        )
        self.apply([edit])

    def override_instance(
        self, account: str, calendar: str, master: str, original_start: str, body: Mapping[str, Any]
    ) -> JsonDict:
        return self._edit(
            Edit(
                kind="override_instance",
                account=account,
                calendar=calendar,
                event=master,
                original_start=original_start,
                body=dict(body),
            )
        )

    def split(
        self,
        account: str,
        calendar: str,
        master: str,
        original_start: str,
        body: Mapping[str, Any] | None = None,
    ) -> JsonDict:
        """ "This and following": the new series' master is the answer."""
        return self._edit(
            Edit(
                kind="split",
                account=account,
                calendar=calendar,
                event=master,
                original_start=original_start,
                body=dict(body or {}),
            )
        )

    def truth(self, account: str, calendar: str, *, show_deleted: bool = False) -> list[JsonDict]:
        """What a complete full list with singleEvents=false would hold, whatever faults are set."""
        items: list[JsonDict] = self._call("truth", account=account, calendar=calendar, show_deleted=show_deleted)
        return items

    # Tokens and faults

    def expire_sync_tokens(self, *, account: str | None = None, calendar: str | None = None) -> int:
        """Every sync token issued so far for the matching calendars; how many calendars that were."""
        return int(self._call("expire_sync_tokens", account=account, calendar=calendar))

    def expire_calendar_list_tokens(self, account: str) -> None:
        self._call("expire_calendar_list_tokens", account=account)

    def forget_sync_token(self, token: str) -> bool:
        return bool(self._call("forget_sync_token", token=token))

    def add_fault(self, fault: Fault) -> int:
        return int(self._call("add_fault", fault=fault))

    def clear_faults(self, *, number: int | None = None, account: str | None = None) -> int:
        return int(self._call("clear_faults", number=number, account=account))

    def faults(self) -> list[tuple[int, Fault, int | None]]:
        """Number, fault, and for how many more requests (None: until cleared)."""
        return [
            (found["number"], Fault.model_validate(found["fault"]), found["left"]) for found in self._call("faults")
        ]

    # What was asked

    def requests(
        self,
        *,
        since: int = 0,
        account: str | None = None,
        calendar: str | None = None,
        endpoint: str | None = None,
        limit: int | None = None,
    ) -> list[LoggedRequest]:
        """Oldest first, those with a `seq` above `since`; with `limit` only the newest so many."""
        found = self._call("requests", since=since, account=account, calendar=calendar, endpoint=endpoint, limit=limit)
        return [LoggedRequest.model_validate(entry) for entry in found]

    def clear_requests(self) -> None:
        self._call("clear_requests")

    def counters(self) -> Counters:
        return Counters.model_validate(self._call("counters"))

    def _edit(self, edit: Edit) -> JsonDict:
        (done,) = self.apply([edit])
        return done or {}

    def _call(self, name: str, **payload: object) -> Any:
        plain = {key: _plain(value) for key, value in payload.items()}
        response = self._http.post(f"/__control/{name}", content=encode(plain))
        if response.status_code != 200:
            raise ControlRefusedError(f"{name}: {response.text}")
        return response.json()


def _plain(value: object) -> object:
    if isinstance(value, (Behaviour, Fault, FleetSpec, SeedSpec, Edit)):
        return value.model_dump()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
