"""Everything one stand-in knows, and the two ways in: grants for clients, records for the control API."""

import hashlib
from collections import deque
from dataclasses import dataclass
from random import Random

from sandbox.google.clock import Clock
from sandbox.google.edits import Editor
from sandbox.google.errors import ApiError
from sandbox.google.faults import FaultScript
from sandbox.google.listing import Desk
from sandbox.google.model import Account, Calendar, Profile
from sandbox.google.quota import Quotas
from sandbox.google.specs import AccountInfo, Behaviour, Counters, LoggedRequest, Tally
from sandbox.google.tokens import TokenMint


@dataclass(slots=True)
class Grant:
    """An access token's meaning."""

    account: Account
    expires_ms: int


class Store:
    def __init__(self, *, seed: int = 1) -> None:
        self.seed = seed
        self._epoch = 0
        self.reset(seed=seed)

    def reset(self, *, seed: int | None = None) -> None:
        """Forgets everything. Tokens issued before it are foreign afterwards, also under the same seed."""
        self.seed = self.seed if seed is None else seed
        self._epoch += 1
        self.rng = Random(self.seed)
        self.clock = Clock()
        self.behaviour = Behaviour()
        self.accounts: dict[str, Account] = {}
        self.grants: dict[str, Grant] = {}
        self.refresh_tokens: dict[str, Account] = {}
        self.faults = FaultScript()
        self.quotas = Quotas()
        self.desk = Desk(TokenMint(f"{self.seed}.{self._epoch}"), self.behaviour, self.clock.now_ms)
        self.editor = Editor(clock=self.clock, rng=self.rng, behaviour=self.behaviour)
        self.log: deque[LoggedRequest] = deque(maxlen=self.behaviour.log_size)
        self.counters = Counters(total=Tally(), accounts={})
        self._numbers = 0
        self._seq = 0
        self._grants_made = 0

    def configure(self, behaviour: Behaviour) -> None:
        """Changed in place, because the editor and the token desk look at the same object."""
        for name in Behaviour.model_fields:
            setattr(self.behaviour, name, getattr(behaviour, name))
        if self.log.maxlen != behaviour.log_size:
            self.log = deque(self.log, maxlen=behaviour.log_size)

    def account(self, email: str) -> Account:
        try:
            return self.accounts[email]
        except KeyError:
            raise LookupError(f"no account {email!r}: create it first") from None

    def calendar(self, email: str, calendar_id: str) -> Calendar:
        calendar = self.account(email).find(calendar_id)
        if calendar is None:
            raise LookupError(f"{email!r} has no calendar {calendar_id!r}: create it first")
        return calendar

    def create_account(self, email: str, *, refresh_token: str | None = None) -> Account:
        """The account comes with its primary calendar, which is named like itself."""
        if email in self.accounts:
            raise ValueError(f"the account {email!r} exists already")
        token = refresh_token or f"1//{self._secret('refresh', email)}"
        account = Account(email, self._number(), token)
        self.accounts[email] = account
        self.refresh_tokens[token] = account
        self.create_calendar(account, email, Profile(summary=email, primary=True))
        return account

    def create_calendar(self, account: Account, calendar_id: str, profile: Profile) -> Calendar:
        if account.find(calendar_id) is not None:
            raise ValueError(f"{account.email!r} has the calendar {calendar_id!r} already")
        stamp = self.clock.stamp()
        calendar = Calendar(
            owner=account.email, calendar_id=calendar_id, number=self._number(), profile=profile, stamp=stamp
        )
        account.calendars[calendar_id] = calendar
        account.touch(calendar, stamp)
        return calendar

    def info(self, account: Account) -> AccountInfo:
        """With an access token at hand, so that a test of the API need not begin with OAuth."""
        return AccountInfo(
            email=account.email,
            refresh_token=account.refresh_token,
            access_token=self.grant(account, self.behaviour.access_token_ttl_s),
            calendars=list(account.calendars),
        )

    def grant(self, account: Account, ttl_s: float) -> str:
        self._grants_made += 1
        token = f"ya29.{self._secret('access', account.email, self._grants_made)}"
        self.grants[token] = Grant(account, self.clock.now_ms() + round(ttl_s * 1000))
        return token

    def authorize(self, token: str | None) -> Account:
        if token is None:
            raise ApiError(401, "required", headers={"WWW-Authenticate": "Bearer"})
        grant = self.grants.get(token)
        if grant is None or grant.account.revoked or grant.expires_ms <= self.clock.now_ms():
            raise ApiError(401, "authError", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return grant.account

    def owner_of(self, token: str | None) -> Account | None:
        """Whose token it is, valid or not: faults and counters go by that."""
        grant = self.grants.get(token) if token is not None else None
        return grant.account if grant is not None else None

    def expire_grants(self, account: Account | None) -> int:
        """Kept as expired ones, so that the refused request is still counted for its account."""
        live = [
            grant
            for grant in self.grants.values()
            if account in (None, grant.account) and grant.expires_ms > self.clock.now_ms()
        ]
        for grant in live:
            grant.expires_ms = 0
        return len(live)

    def begin(self, entry: LoggedRequest) -> list[Tally]:
        """Logged on arrival, so that a request that is never answered shows too."""
        tallies = [self.counters.total]
        if entry.account is not None:
            tallies.append(self.counters.accounts.setdefault(entry.account, Tally()))
        for tally in tallies:
            tally.requests += 1
            tally.in_flight += 1
            tally.peak = max(tally.peak, tally.in_flight)
            tally.by_endpoint[entry.endpoint] = tally.by_endpoint.get(entry.endpoint, 0) + 1
        self.log.append(entry)
        return tallies

    @staticmethod
    def end(entry: LoggedRequest, tallies: list[Tally]) -> None:
        status = str(entry.status or "unanswered")
        for tally in tallies:
            tally.in_flight -= 1
            tally.bytes_sent += entry.bytes_sent
            tally.by_status[status] = tally.by_status.get(status, 0) + 1

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _secret(self, *parts: object) -> str:
        text = f"{self.seed}.{self._epoch} {parts!r}"
        return hashlib.blake2b(text.encode(), digest_size=24).hexdigest()
