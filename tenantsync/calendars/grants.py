"""Credentials of the two kinds: an OAuth grant that is refreshed, and a name with a password."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yarl import URL

from tenantsync import clock
from tenantsync.errors import GrantRevoked, OperatorFault, RateLimited, SyncError, Transient
from tenantsync.headers import RATE_PAUSE, retry_after
from tenantsync.outbound import Answer, Meter, Transport

EARLY = timedelta(seconds=60)
"""A token is renewed this long before it ends, so that none ends on the way."""

Persist = Callable[[str, datetime], Awaitable[None]]


class CredentialsMalformed(ValueError):
    """Account credentials that cannot be used. The message says what they should look like, and quotes nothing."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, str_min_length=1)


class GoogleCredentials(_Strict):
    """What is stored for a Google account; google-auth's `authorized_user` files fit.

    A client in such a file is not used: were it, a tenant's own broken client could look like ours.
    """

    refresh_token: str


class CaldavCredentials(_Strict):
    """What is stored for a CalDAV account."""

    username: str = Field(pattern=r"^[^:\x00-\x1f]+$")  # a colon ends the name in Basic authentication
    password: str


_FORMS: dict[str, tuple[type[_Strict], str]] = {
    "google": (GoogleCredentials, '{"refresh_token": "…"}'),
    "caldav": (CaldavCredentials, '{"username": "…", "password": "…"}'),
}


def parse_credentials(provider: str, text: str | bytes) -> GoogleCredentials | CaldavCredentials:
    """Credentials of a provider from JSON. Raises CredentialsMalformed."""
    form, example = _FORMS[provider]
    try:
        parsed = form.model_validate(orjson.loads(text))
    except (orjson.JSONDecodeError, ValidationError) as error:
        fields = (
            sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]})
            if isinstance(error, ValidationError)
            else []
        )
        where = f" (see {', '.join(fields)})" if fields else ""
        raise CredentialsMalformed(
            f"credentials for {provider} should be one JSON object like {example}{where}"
        ) from None
    assert isinstance(parsed, GoogleCredentials | CaldavCredentials)  # noqa: S101 — narrows the type
    return parsed


class BasicLogin:
    """A name and a password, as CalDAV servers want them (RFC 7617)."""

    def __init__(self, credentials: CaldavCredentials) -> None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        self._headers = {"Authorization": "Basic " + base64.b64encode(pair).decode()}

    async def headers(self, meter: Meter) -> Mapping[str, str]:
        return self._headers

    async def renewed(self, refused: Mapping[str, str], meter: Meter) -> Mapping[str, str] | None:
        return None


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """The operator's OAuth client at Google."""

    token_uri: str
    client_id: str | None
    client_secret: str | None


class GoogleGrant:
    """A refresh token and the access token made from it (RFC 6749 §6).

    Refreshing is single-flight: any number of calendars of the account wait for one request. A refusal
    is remembered for the rest of the run, so that a revoked grant costs exactly one request.
    """

    def __init__(
        self,
        transport: Transport,
        client: OAuthClient,
        credentials: GoogleCredentials,
        *,
        access_token: str | None = None,
        expires_at: datetime | None = None,
        persist: Persist | None = None,
    ) -> None:
        self._transport = transport
        self._client = client
        self._credentials = credentials
        self._token = access_token
        self._expires_at = expires_at
        self._persist = persist
        self._one_at_a_time = asyncio.Lock()
        self._refusal: SyncError | None = None

    async def headers(self, meter: Meter) -> Mapping[str, str]:
        if self._token is None or self._expires_at is None or self._expires_at - EARLY <= clock.now():
            await self._refresh(self._token, meter)
        return {"Authorization": f"Bearer {self._token}"}

    async def renewed(self, refused: Mapping[str, str], meter: Meter) -> Mapping[str, str] | None:
        await self._refresh(refused["Authorization"].removeprefix("Bearer "), meter)
        return {"Authorization": f"Bearer {self._token}"}

    async def _refresh(self, stale: str | None, meter: Meter) -> None:
        async with self._one_at_a_time:
            if self._refusal is not None:
                raise self._refusal
            if self._token is not None and self._token != stale:
                return  # somebody else has just done it
            try:
                await self._ask(meter)
            except SyncError as error:
                self._refusal = error
                raise

    async def _ask(self, meter: Meter) -> None:
        if self._client.client_id is None or self._client.client_secret is None:
            raise OperatorFault("oauth_client_missing", "set GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET")
        form = urlencode(
            {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.refresh_token,
                "client_id": self._client.client_id,
                "client_secret": self._client.client_secret,
            }
        ).encode()
        answer = await self._transport.request(
            "POST",
            URL(self._client.token_uri, encoded=True),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            data=form,
            meter=meter,
            budgeted=False,
        )
        token, lifetime = _granted(answer)
        self._token, self._expires_at = token, clock.now() + timedelta(seconds=lifetime)
        if self._persist is not None:
            await self._persist(token, self._expires_at)


def _granted(answer: Answer) -> tuple[str, float]:
    """(access token, seconds it lives) of a token endpoint's answer, or the SyncError for a refusal."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    if answer.status == 200:
        token, lifetime = body.get("access_token"), body.get("expires_in", 3600)
        if isinstance(token, str) and token and isinstance(lifetime, int | float):
            return token, float(lifetime)
        raise Transient("token_not_json", "the token endpoint answered 200 without an access token")
    if answer.status == 429:
        wait = retry_after(answer.headers.get("Retry-After"))
        raise RateLimited("token_429", retry_after=wait or RATE_PAUSE, given=wait is not None)
    error, about = str(body.get("error", "")), str(body.get("error_description", ""))
    if error == "invalid_grant":
        if "iat" in about and "exp" in about:
            raise OperatorFault("clock", "Google refuses this machine's clock (iat/exp)")
        raise GrantRevoked("invalid_grant", "the tenant revoked access, or the grant expired")
    if error in ("unauthorized_client", "invalid_request"):  # a token of another client, or none at all
        raise GrantRevoked(error, "the refresh token was not issued to this OAuth client")
    if error == "invalid_client":
        raise OperatorFault(error, "Google refuses the OAuth client; check GOOGLE_CLIENT_ID and its secret")
    raise Transient(f"token_http_{answer.status}", "the token endpoint has trouble")
