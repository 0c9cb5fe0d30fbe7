"""Supabase through supabase-py, with a client of our own below it.

supabase-py's own client speaks HTTP/2, waits 120 s, sleeps through retries in the calling thread and shows
neither status nor Retry-After. The hook below keeps both, and the caller decides when to try again.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from postgrest.exceptions import APIError

from supabase import Client, ClientOptions, create_client
from tenantsync.headers import retry_after

TIMEOUT = httpx.Timeout(15.0, connect=3.0)  # the service role's statements end after 8 s on hosted projects
LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=8, keepalive_expiry=4)
PAGE = 1000  # rows; a project's max_rows cuts longer answers silently

TABLES = {
    "accounts": "calendar_accounts",
    "calendars": "calendars",
    "events": "calendar_events",
    "tasks": "tasks",
    "processes": "processes",
    "process_events": "process_events",
}

KEYS = {"process_events": ("process_id", "sequence")}
"""What rows are ordered by where it is not the id."""


class MirrorError(Exception):
    """Supabase did not take what it was given. The text says why, and holds neither keys nor rows."""

    def __init__(self, reason: str, detail: str, *, pause: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.pause = pause
        """Seconds after which Supabase wants to be asked again, if it said so."""


class MirrorUnavailable(MirrorError):
    """Down, slow, overloaded or talking nonsense: try again later."""


class MirrorMisconfigured(MirrorError):
    """A wrong key, a missing migration: an operator has to act, then it goes on by itself."""


class MirrorTooLarge(MirrorError):
    """The call was too large; smaller ones may pass."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that breaks a rule of Supabase's table."""

    row_id: str
    sqlstate: str


class Supabase:
    """One project, seen with a secret key. Safe to use from several threads."""

    def __init__(self, url: str, secret_key: str) -> None:
        self._seen = threading.local()
        self._http = httpx.Client(
            http2=False, timeout=TIMEOUT, limits=LIMITS, event_hooks={"response": [self._remember]}
        )
        options = ClientOptions(
            httpx_client=self._http,
            auto_refresh_token=False,
            persist_session=False,
            postgrest_client_retry=False,
        )
        self._client: Client = create_client(url, secret_key, options)
        self._where = httpx.URL(url).netloc.decode()

    def close(self) -> None:
        self._http.close()

    def check(self) -> None:
        """Return if the mirrored tables can be read and the apply function exists; raises MirrorError otherwise."""
        self.apply("events", [])

    def apply(self, entity: str, rows: Sequence[dict[str, Any]]) -> list[Rejected]:
        """Bring rows to Supabase; returns those that it refuses. Older versions than it has change nothing."""
        answer = self._call(lambda: self._client.rpc("mirror_apply", {"target": entity, "rows": list(rows)}).execute())
        if not isinstance(answer, dict) or answer.get("received") != len(rows):
            raise MirrorUnavailable("not_json", f"{self._where} answered 200 with something else than asked for")
        try:
            return [Rejected(str(one["id"]), str(one["sqlstate"])) for one in answer["rejected"]]
        except (KeyError, TypeError):
            raise MirrorUnavailable("not_json", f"{self._where} does not say which rows it refuses") from None

    def purge(self, before: str) -> int:
        """Delete tombstones from before a moment (ISO 8601); returns how many."""
        answer = self._call(lambda: self._client.rpc("mirror_purge", {"before": before}).execute())
        if not isinstance(answer, int):
            raise MirrorUnavailable("not_json", f"{self._where} answered 200 with something else than a number")
        return answer

    def purge_processes(self, *, before: str, archived_before: str) -> int:
        """Delete closed processes and events from before a moment, those of no interest earlier; returns how many."""
        about = {"before": before, "archived_before": archived_before}
        answer = self._call(lambda: self._client.rpc("process_purge", about).execute())
        if not isinstance(answer, int):
            raise MirrorUnavailable("not_json", f"{self._where} answered 200 with something else than a number")
        return answer

    def rows(self, entity: str, *, tenant_id: str) -> Iterator[list[dict[str, Any]]]:
        """Everything that a mirrored table holds of a tenant, tombstones included, in pages by key."""
        key = KEYS.get(entity, ("id",))
        last: dict[str, Any] | None = None
        while True:
            query = self._client.table(TABLES[entity]).select("*").eq("tenant_id", tenant_id).limit(PAGE)
            if last is not None:
                query = query.or_(",".join(_beyond(key, last)))
            for column in key:
                query = query.order(column)
            page = self.found(query)
            if page:
                yield page
                last = page[-1]
            if len(page) < PAGE:
                return

    def query(self, table: str) -> Any:
        """A query of one table, to be run by `found`."""
        return self._client.table(table)

    def found(self, query: Any) -> list[dict[str, Any]]:
        """The rows that a query finds. Raises MirrorError."""
        rows = self._call(query.execute)
        if not isinstance(rows, list) or self._seen.empty:  # the client takes no answer for no rows
            raise MirrorUnavailable("not_json", f"{self._where} answered 200 with something else than rows")
        return rows

    def _remember(self, response: httpx.Response) -> None:
        self._seen.status = response.status_code
        self._seen.pause = retry_after(response.headers.get("retry-after"))
        self._seen.empty = not response.read()

    def _call(self, work: Any) -> Any:
        self._seen.status, self._seen.pause, self._seen.empty = None, None, True
        try:
            return work().data
        except APIError as error:
            raise self._classified(error) from None
        except RecursionError:
            raise MirrorUnavailable("not_json", f"{self._where} answered with JSON of no end of depth") from None
        except httpx.TimeoutException:
            raise MirrorUnavailable("timeout", f"{self._where} did not answer in time") from None
        except httpx.HTTPError as error:
            raise MirrorUnavailable(
                "unreachable", f"{self._where} could not be reached or hung up ({type(error).__name__})"
            ) from None

    def _classified(self, error: APIError) -> MirrorError:
        status, pause = self._seen.status, self._seen.pause
        if status in (401, 403) or error.code == "42501":
            return MirrorMisconfigured(
                "refused", f"{self._where} refuses SUPABASE_SECRET_KEY, or the grants of our migrations are missing"
            )
        if status == 404 or error.code in ("PGRST202", "PGRST205", "42883"):
            return MirrorMisconfigured(
                "not_migrated", f"{self._where} lacks mirror_apply; apply supabase/migrations to the project"
            )
        if status == 413:
            return MirrorTooLarge("too_large", f"{self._where} takes smaller calls")
        code = error.code if error.code and len(error.code) <= 10 else "?"
        return MirrorUnavailable(f"http_{status}", f"{self._where} has trouble (code {code})", pause=pause)


def _beyond(key: Sequence[str], row: dict[str, Any]) -> Iterator[str]:
    """PostgREST's way to say `(a, b) > (1, 2)`: a > 1, or a = 1 and b > 2."""
    for place, column in enumerate(key):
        equal = [f"{one}.eq.{row[one]}" for one in key[:place]]
        terms = [*equal, f"{column}.gt.{row[column]}"]
        yield terms[0] if len(terms) == 1 else f"and({','.join(terms)})"
