"""Who may hear and say what: tokens, and the row-level security of `realtime.messages`, asked as the user.

As the hosted service does it: a row of the topic is put there, looked at and written in the user's role and with the
user's claims, and all of it is rolled back.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jwt
import psycopg2
from psycopg2 import sql

ROLES = frozenset({"anon", "authenticated", "service_role"})

_PROBE = "insert into realtime.messages (id, topic, extension, event, payload, private) values (%s, %s, %s, %s, %s, %s)"
_BECOME = """
select set_config('request.jwt.claims', %s, true), set_config('request.jwt.claim.sub', %s, true),
       set_config('request.jwt.claim.role', %s, true), set_config('realtime.topic', %s, true)
"""


class Refused(Exception):
    """A token or a topic that is not for this user; the text is what the client reads."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    role: str
    claims: dict[str, Any]

    @property
    def expires_at(self) -> float | None:
        """Seconds since 1970; None: never."""
        expiry = self.claims.get("exp")
        return float(expiry) if isinstance(expiry, int | float) else None


@dataclass(frozen=True, slots=True)
class Keys:
    """What a project accepts."""

    publishable: str
    secret: str
    jwt_secret: str

    def knows(self, key: str | None) -> bool:
        """Whether this is one of the project's API keys."""
        return key in (self.publishable, self.secret)

    def caller(self, *, key: str | None, token: str | None) -> Caller:
        """Who speaks with this API key and, perhaps, this access token. Raises Refused."""
        presented = token or key
        if presented == self.secret:
            return Caller("service_role", {"role": "service_role"})
        if presented == self.publishable:
            return Caller("anon", {"role": "anon"})
        return self._signed(presented or "")

    def _signed(self, token: str) -> Caller:
        options: Any = {"verify_aud": False, "require": ["exp", "role"], "verify_exp": False}
        try:
            claims = jwt.decode(token, self.jwt_secret, algorithms=["HS256"], options=options)
        except jwt.PyJWTError as error:
            raise Refused(f"InvalidJWTToken: {error}") from None
        late = time.time() - float(claims["exp"])
        if late >= 0:
            raise Refused(f"InvalidJWTToken: Token has expired {int(late)} seconds ago")
        if claims["role"] not in ROLES:
            raise Refused("InvalidJWTToken: the role is none of this project's")
        return Caller(str(claims["role"]), claims)


def may_read(dsn: str, caller: Caller, topic: str) -> bool:
    """Whether the policies show this user a message of the topic."""
    probe = str(uuid.uuid4())
    with _rolled_back(dsn) as cursor:
        cursor.execute(_PROBE, (probe, topic, "broadcast", "probe", "{}", True))
        _become(cursor, caller, topic)
        try:
            cursor.execute("select 1 from realtime.messages where id = %s", (probe,))
            return cursor.fetchone() is not None
        except psycopg2.Error:
            return False


def may_write(dsn: str, caller: Caller, topic: str) -> bool:
    """Whether the policies let this user write a message to the topic."""
    with _rolled_back(dsn) as cursor:
        _become(cursor, caller, topic)
        try:
            cursor.execute(_PROBE, (str(uuid.uuid4()), topic, "broadcast", "probe", "{}", True))
        except psycopg2.Error:
            return False
        return True


def _become(cursor: Any, caller: Caller, topic: str) -> None:
    subject = str(caller.claims.get("sub") or "")
    cursor.execute(_BECOME, (json.dumps(caller.claims), subject, caller.role, topic))
    cursor.execute(sql.SQL("set local role {}").format(sql.Identifier(caller.role)))


@contextmanager
def _rolled_back(dsn: str) -> Iterator[Any]:
    connection = psycopg2.connect(dsn, connect_timeout=5, application_name="realtime stand-in")
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.rollback()
        connection.close()
