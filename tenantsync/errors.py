"""What can go wrong between us and a provider. What a run does next depends on the class alone.

    SyncError
    ├── Transient             try again later: network, 5xx, a body that is not what it should be
    ├── RateLimited           closed until a moment, because the provider said so
    ├── OverBudget            not sent at all: our own budget at the provider is used up for now
    ├── CursorVoid            the cursor is worthless: list everything again
    ├── GrantRevoked          the tenant has to connect the account again
    ├── AccountUnusable       the account can never work as it is
    ├── CalendarUnavailable   this one calendar is not there, or not ours to read
    ├── OperatorFault         our own set-up is wrong; no tenant is to blame
    └── Refused               the request itself was wrong: our bug, never retried quickly

Each adapter maps statuses and reasons to these classes in one function. `reason` is a short constant
for counting (`http_503`, `fullSyncRequired`); `detail` is a sentence for people. Neither ever holds a
token, a password, or text that a provider sent, for a provider may echo what it was sent.
"""


class SyncError(Exception):
    """The common ancestor. `reason` counts, `detail` explains."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Transient(SyncError):
    """Not the tenant's doing and expected to pass."""


class RateLimited(SyncError):
    """`retry_after` is in seconds from now; `scope` is what is closed: account or project.

    `given` is False where the provider named no time: then it is doubled for every time that the scope closes again.
    """

    def __init__(
        self, reason: str, *, retry_after: float, given: bool = True, scope: str = "account", detail: str = ""
    ) -> None:
        super().__init__(reason, detail)
        self.retry_after = retry_after
        self.given = given
        self.scope = scope


class OverBudget(SyncError):
    """The request was not sent. Nobody is to blame and nothing is closed; `retry_after` is in seconds from now."""

    def __init__(self, reason: str, detail: str = "", *, retry_after: float) -> None:
        super().__init__(reason, detail)
        self.retry_after = retry_after


class CursorVoid(SyncError):
    """The provider no longer knows the cursor, or never did."""


class GrantRevoked(SyncError):
    """The provider refuses the account's credentials for good."""


class AccountUnusable(SyncError):
    """For instance a Google account without Google Calendar."""


class CalendarUnavailable(SyncError):
    """Not found or forbidden. `gone` is True when the provider says that it was deleted."""

    def __init__(self, reason: str, detail: str = "", *, gone: bool = False) -> None:
        super().__init__(reason, detail)
        self.gone = gone


class OperatorFault(SyncError):
    """The API is not enabled, the OAuth client is wrong, the clock is off.

    `scope` is how far it reaches: `project` stops everybody at that provider, so it is only for what no
    tenant can bring about.
    """

    def __init__(self, reason: str, detail: str = "", *, scope: str = "project") -> None:
        super().__init__(reason, detail)
        self.scope = scope


class Refused(SyncError):
    """A request that can never succeed as it was sent."""


class PublishFailed(Exception):
    """The broker did not take a message. What it was for stands in Postgres, and is sent again or due again."""
