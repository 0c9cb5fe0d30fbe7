"""What the control API takes: the server's settings, faults, edits and seeds, checked on both ends."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Wire = Literal[
    "status", "always_410", "html_200", "truncated_json", "cut_gzip", "not_json", "reset", "hang", "drip",
    "endless_body", "huge_body", "redirect",
]  # fmt: skip
Quirk = Literal[
    "page_without_tokens", "sync_token_on_first_page", "same_page_token_forever", "empty_page_with_token",
    "page_without_items", "duplicate_item_over_pages", "empty_full_list",
]  # fmt: skip
Aside = Literal["slow", "expire_tokens"]
Poison = Literal[
    "year_zero", "end_before_start", "missing_start", "missing_end", "unknown_event_type", "huge_description",
    "nul_text", "lone_surrogate", "bad_time_zone", "bad_recurrence", "wrong_types", "every_second",
]  # fmt: skip
EditKind = Literal[
    "insert", "patch", "update", "delete", "restore", "move", "cancel_instance", "override_instance", "split"
]
AccessRole = Literal["freeBusyReader", "reader", "writerWithoutPrivateAccess", "writer", "owner"]

WIRE: frozenset[str] = frozenset(get_args(Wire))
QUIRKS: frozenset[str] = frozenset(get_args(Quirk))


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QuotaRules(Spec):
    """Sliding windows; None means unlimited, which is the default so that nothing is refused by surprise."""

    per_user: int | None = None
    per_project: int | None = None
    window_s: float = 60.0
    status: Literal[403, 429] = 403
    user_reason: str = "userRateLimitExceeded"
    project_reason: str = "rateLimitExceeded"
    retry_after: Literal["none", "seconds", "date"] = "none"


class Behaviour(Spec):
    """How this Google behaves where the real one is unknown, differs by account, or must be provoked."""

    client_id: str = "stand-in-client"
    client_secret: str = "stand-in-secret"
    access_token_ttl_s: float = 3599.0
    sync_token_ttl_s: float | None = None
    sync_token_length: int = Field(default=56, ge=56, le=65536)
    new_token_when_quiet: bool = True
    invalid_token_status: Literal[400, 410] = 400
    changed_params: Literal["refuse", "ignore"] = "refuse"
    token_for_filtered_lists: bool = False
    page_size: int | None = Field(default=None, ge=1)
    tombstone_days: float = 30.0
    updated_min_days: float = 29.0
    list_exceptions_of_deleted_master: bool = False
    keep_cancelled_details: bool = False
    expansion_days: int = 365 * 14
    expansion_limit: int = 1000
    strict_params: bool = True
    latency_ms: float = 0.0
    gzip: bool = True
    log_size: int = 20_000
    quota: QuotaRules = QuotaRules()


class Fault(Spec):
    """One kind of misbehaviour, for whom, and for how many matching requests.

    `account`, `calendar`, `endpoint`, `list_kind` and `page` narrow it; an endpoint is named like the
    method of the API (`events.list`, or `list` for short, `calendarList.list`, `events.get`, …) or
    `token`. Without one it meets every request but those to the token endpoint. It lets `skip` matching
    requests pass, then strikes `times` ones (None: until cleared). A request meets the first wire fault
    that matches, and every quirk, delay and token fault.

    On the wire: `status` (with `reason`, `message`, `html`, `retry_after`), `always_410`, `html_200`,
    `not_json`, `truncated_json`, `cut_gzip`, `reset` (in the middle of the body), `hang`, `drip` (over
    `seconds`), `endless_body`, `huge_body` (of `size` bytes before compression), `redirect` (to `url`).
    In a list's page: the names of `Quirk`; they lose no item, except `empty_full_list` and
    `page_without_tokens`. Beside it: `slow` (by `seconds`) and `expire_tokens` (all sync tokens of the
    calendar, before the request is answered).
    """

    kind: Wire | Quirk | Aside
    account: str | None = None
    calendar: str | None = None
    endpoint: str | None = None
    list_kind: Literal["full", "delta"] | None = None
    page: Literal["first", "later"] | None = None
    skip: int = Field(default=0, ge=0)
    times: int | None = Field(default=1, ge=1)
    status: int = 503
    reason: str = "backendError"
    message: str | None = None
    html: bool = False
    retry_after: float | None = None
    retry_after_form: Literal["seconds", "date"] = "seconds"
    seconds: float = 1.0
    size: int = Field(default=64 * 1024 * 1024, ge=1)
    url: str = "http://127.0.0.1:9/portal"

    @model_validator(mode="after")
    def _lists_only(self) -> "Fault":
        """What speaks of lists must not be used up by a `get`; `list` is short for events.list."""
        of_lists = self.kind in QUIRKS or self.kind in {"always_410", "expire_tokens"}
        if self.endpoint is None and (of_lists or self.list_kind is not None or self.page is not None):
            self.endpoint = "list"
        return self


class Edit(Spec):
    """One change to a calendar, as a user or another client would make it."""

    kind: EditKind
    account: str
    calendar: str
    event: str | None = None
    body: dict[str, Any] = Field(default_factory=dict)
    destination: str | None = None
    original_start: str | None = None


class SeedSpec(Spec):
    """Events made on the server: every n-th one all-day, every m-th one a series with exceptions."""

    events: int = Field(ge=0)
    first_day: str = "2026-01-05"
    days: int = Field(default=365, ge=1)
    time_zone: str = "Europe/Berlin"
    all_day_every: int = Field(default=10, ge=0)
    series_every: int = Field(default=20, ge=0)
    overrides_per_series: int = Field(default=1, ge=0, le=20)
    cancelled_per_series: int = Field(default=1, ge=0, le=20)
    attendees: int = Field(default=2, ge=0, le=200)
    description_bytes: int = Field(default=80, ge=0)
    tombstones: int = Field(default=0, ge=0)


class FleetSpec(Spec):
    """Many accounts alike, for benchmarks and demos."""

    accounts: int = Field(ge=1)
    calendars: int = Field(default=1, ge=1)
    seed: SeedSpec = SeedSpec(events=20)
    email: str = "user{n:05d}@example.test"
    first: int = Field(default=1, ge=0)


class AccountInfo(Spec):
    """What a client needs to act for an account."""

    email: str
    refresh_token: str
    access_token: str
    calendars: list[str] = Field(default_factory=list)


class LoggedRequest(Spec):
    """One request as the server saw it. `status` stays None if it is never answered (hang, client gone)."""

    seq: int
    time_ms: int
    method: str
    path: str
    query: dict[str, str]
    endpoint: str
    account: str | None
    calendar: str | None
    bearer: bool
    status: int | None = None
    bytes_sent: int = 0
    duration_ms: float = 0.0
    faults: list[str] = Field(default_factory=list)


class Tally(Spec):
    """Sums since the start or the last reset; `peak` is the largest number of requests at once."""

    requests: int = 0
    bytes_sent: int = 0
    in_flight: int = 0
    peak: int = 0
    by_endpoint: dict[str, int] = Field(default_factory=dict)
    by_status: dict[str, int] = Field(default_factory=dict)


class Counters(Spec):
    total: Tally
    accounts: dict[str, Tally]
