"""A real web server over a test's database, and somebody logged in for each role; fixtures: web_fixtures.py."""

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from uuid import UUID

import httpx
import uvicorn
from sqlalchemy import Connection

from config.settings import Settings
from db.repositories import identity, tenants
from db.session import Database
from tenantsync.identity import people
from tenantsync.identity.roles import Role
from tenantsync.identity.tokens import ACCESS_LIFETIME, Tokens, Use
from tenantsync.web.services import open_services

SECRET_KEY = "tests-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEF"
PASSWORD = "correct horse battery staple"
_hashes: dict[str, str] = {}
_numbers = count(1)


def _hash() -> str:
    if PASSWORD not in _hashes:  # 50 ms a time, for every user of every test
        _hashes[PASSWORD] = people.hashed(PASSWORD, email="nobody@example.test")
    return _hashes[PASSWORD]


@dataclass
class Web:
    """The server's address, and clients of it. All clients are closed with the test."""

    url: str
    database: Database
    settings: Settings
    server: uvicorn.Server
    _clients: list[httpx.Client] = field(default_factory=list)

    def tenant(self, name: str | None = None) -> tuple[UUID, UUID]:
        """A tenant with one workspace: (tenant_id, workspace_id)."""
        with self.database.transaction() as connection:
            tenant_id = tenants.add_tenant(connection, name=name or f"web tenant {next(_numbers)}")
            return tenant_id, tenants.add_workspace(connection, tenant_id=tenant_id, name="office")

    def user(self, role: Role = Role.MEMBER, *, tenant_id: UUID | None = None, email: str | None = None) -> str:
        """Add somebody who logs in with PASSWORD; returns the e-mail address."""
        number = next(_numbers)
        wish = people.checked(
            email=email or f"{role}-{number}@example.test", name=f"{role} {number}", role=role, language="en"
        )
        with self.database.transaction() as connection:
            people.add(connection, wish, tenant_id=tenant_id, password_hash=_hash(), by="test")
        return wish.email

    def client(self, **options: object) -> httpx.Client:
        """A client that is nobody yet."""
        made = httpx.Client(base_url=self.url, timeout=10, trust_env=False, **options)  # type: ignore[arg-type]
        self._clients.append(made)
        return made

    def bearer(self, role: Role = Role.MEMBER, *, tenant_id: UUID | None = None) -> httpx.Client:
        """A program's client with an access token of a new user."""
        client = self.client()
        client.headers["Authorization"] = f"Bearer {self.token(self.user(role, tenant_id=tenant_id))}"
        return client

    def browser(self, role: Role = Role.MEMBER, *, tenant_id: UUID | None = None) -> httpx.Client:
        """A client with a session's cookie, as a browser has it; its CSRF token is in its headers."""
        client = self.client()
        cookie, csrf = self.session(self.user(role, tenant_id=tenant_id))
        client.cookies.set("tenantsync", cookie)
        client.headers["X-CSRF-Token"] = csrf
        return client

    def token(self, email: str, *, lifetime: timedelta = ACCESS_LIFETIME) -> str:
        """An access token of a new session, without the password's cost: tests of logging in send it themselves."""
        return self._issued(email, "access", lifetime)[0]

    def session(self, email: str) -> tuple[str, str]:
        """A cookie's value for somebody, and the CSRF token that goes with it."""
        token, session_id = self._issued(email, "cookie", timedelta(hours=1))
        return token, self.tokens.csrf(session_id)

    @staticmethod
    def open_session(connection: Connection, email: str) -> UUID:
        """A session of somebody, without tokens."""
        found = identity.by_email(connection, email=email)
        assert found is not None
        session_id, _ = identity.start_session(
            connection, user_id=found[0].user_id, lifetime=timedelta(hours=1), user_agent="tests"
        )
        return session_id

    @property
    def tokens(self) -> Tokens:
        return open_services(self.settings, self.database).tokens

    def _issued(self, email: str, use: Use, lifetime: timedelta) -> tuple[str, UUID]:
        with self.database.transaction() as connection:
            session_id = self.open_session(connection, email)
            found = identity.by_email(connection, email=email)
            assert found is not None
            user = found[0]
        token = self.tokens.issue(
            use,
            session_id=session_id,
            user_id=user.user_id,
            role=user.role,
            tenant_id=user.tenant_id,
            lifetime=lifetime,
        )
        return token, session_id

    def close(self) -> None:
        for client in self._clients:
            client.close()
