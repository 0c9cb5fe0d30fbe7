"""@supabase/lite on an embedded PostgreSQL: the Supabase project of the demo and the tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import shutil
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.servers.node import PACKAGES, NodeKind, find_node, install
from sandbox.servers.ports import HOST
from sandbox.servers.process import ManagedProcess, clean_environment
from sandbox.servers.server import PROBE_TIMEOUT, Server, remembered

if TYPE_CHECKING:
    from sandbox.servers.postgres import Postgres

HINT = "Its database must be running. A red line above that names a setting comes from sandbox/lite/config.mjs."
HOSTED_STATEMENT_TIMEOUT = timedelta(seconds=8)  # what hosted projects give the API's role
TOKEN_LIFETIME = timedelta(hours=1)


class SupabaseLite(Server):
    """REST, Auth and Storage like a hosted project's, Realtime excepted.

    `postgres` must be running; its restart is survived. What still differs from a hosted project: numbers
    above 2^53 are rounded, keys missing from a row of a bulk insert mean DEFAULT, and most errors of the
    database are a 500 with code `SUP`.
    """

    kind = "supabase"

    def __init__(
        self,
        postgres: Postgres,
        *,
        database: str = "supabase",
        folder: Path | None = None,
        port: int | None = None,
        name: str | None = None,
        schemas: Sequence[str] = ("public",),
        pool: int = 10,
        statement_timeout: timedelta = HOSTED_STATEMENT_TIMEOUT,
        node: NodeKind | None = None,
    ) -> None:
        super().__init__(folder=folder, port=port, name=name)
        self.postgres = postgres
        self.database = database
        self.publishable_key = remembered(self.folder / "publishable_key", lambda: _api_key("publishable"))
        self.secret_key = remembered(self.folder / "secret_key", lambda: _api_key("secret"))
        self.jwt_secret = remembered(self.folder / "jwt_secret", lambda: secrets.token_urlsafe(48))
        self._schemas = tuple(schemas)
        self._pool = pool
        self._statement_timeout = statement_timeout
        self._node_kind = node
        self.gateway: Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def origin(self) -> str:
        """Where the project's web apps reach it: its gateway's address, where it has one."""
        return f"http://{(self.gateway or self).address}"

    @property
    def database_url(self) -> str:
        """The superuser's way in, for migrations."""
        return self.postgres.url(self.database)

    def user_token(
        self,
        tenant_id: str | uuid.UUID | None,
        *,
        user_id: str | uuid.UUID | None = None,
        role: str = "authenticated",
        lifetime: timedelta = TOKEN_LIFETIME,
        now: datetime | None = None,
    ) -> str:
        """What a signed-in member of a tenant (None: of no tenant) sends. Negative lifetimes have expired."""
        issued = now or datetime.now(UTC)
        claims = {
            "iss": f"{self.origin}/auth/v1",
            "aud": "authenticated",
            "role": role,
            "sub": str(user_id or uuid.uuid4()),
            "iat": int(issued.timestamp()),
            "exp": int((issued + lifetime).timestamp()),
            "app_metadata": {} if tenant_id is None else {"tenant_id": str(tenant_id)},
        }
        return _sign(claims, self.jwt_secret)

    def _prepare(self) -> None:
        self._node = find_node(self._node_kind)
        self._modules = install(self._node) / "node_modules"
        if not self.postgres.has_database(self.database):
            self.postgres.create_database(self.database)
        self.postgres.execute(self.database, (PACKAGES / "hosted.sql").read_text())
        # Node looks for packages from the configuration's own folder upwards.
        shutil.copy(PACKAGES / "config.mjs", self.folder)
        link = self.folder / "node_modules"
        link.unlink(missing_ok=True)
        link.symlink_to(self._modules)

    def _build(self, port: int) -> ManagedProcess:
        lite = self._modules / "@supabase" / "lite" / "dist" / "cli" / "index.js"
        # Without --no-admin a request from this machine that carries no key is served as service_role.
        options = [
            "--no-telemetry",
            "start",
            "--no-admin",
            "--config",
            "config.mjs",
        ]  # relative to cwd, always
        return ManagedProcess(
            name=self.name,
            command=[self._node.executable, lite, *options],
            log_path=self.log_path,
            hint=HINT,
            environment=self._environment(port),
            cwd=self.folder,
        )

    def _environment(self, port: int) -> dict[str, str]:
        milliseconds = int(self._statement_timeout.total_seconds() * 1000)
        return clean_environment(
            LITE_PORT=str(port),
            LITE_DATABASE_URL=self.database_url,
            LITE_SCHEMAS=",".join(self._schemas),
            LITE_POOL=str(self._pool),
            LITE_STATEMENT_TIMEOUT=str(milliseconds),
            LITE_JWT_SECRET=self.jwt_secret,
            LITE_PUBLISHABLE_KEY=self.publishable_key,
            LITE_SECRET_KEY=self.secret_key,
            HOME=str(self.folder),  # it makes a folder .lite there
            LITE_TELEMETRY="0",
            DO_NOT_TRACK="1",
            EXPERIMENTAL_STORAGE="1",
            NO_COLOR="1",
        )

    def _ready(self, port: int) -> bool:
        """Only our server knows the secret key."""
        try:
            answer = httpx.get(
                f"http://{HOST}:{port}/rest/v1/",
                headers={"apikey": self.secret_key},
                timeout=PROBE_TIMEOUT,
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        return answer.is_success


def _api_key(kind: str) -> str:
    return f"sb_{kind}_{secrets.token_urlsafe(17)[:22]}_{secrets.token_urlsafe(6)}"


def _sign(claims: dict[str, Any], secret: str) -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    signed = ".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{_base64(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
