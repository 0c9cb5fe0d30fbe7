"""The only reader of the environment: one class, one error that names everything that is wrong."""

import base64
import binascii
import ipaddress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from config.durations import Duration

KEY_BYTES = 32  # AES-256
SECRET_KEY_LENGTH = 32
_URL_SAFE = str.maketrans("-_", "+/")


class SettingsError(Exception):
    """The environment cannot be used. The message names every variable at fault, one a line."""


def _address(schemes: tuple[str, ...], example: str) -> BeforeValidator:
    def check(value: object) -> str:
        try:
            parts = urlsplit(str(value))
        except ValueError:
            parts = urlsplit("")  # its message would repeat what may be a password
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"should look like {example}")
        return str(value)

    return BeforeValidator(check)


def _networks(value: object) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    if isinstance(value, tuple):
        return value
    try:
        return tuple(ipaddress.ip_network(item.strip()) for item in str(value).split(",") if item.strip())
    except ValueError:
        raise ValueError("should be networks like 10.0.0.0/8,fd00::/8, without host bits") from None


def _key_ring(value: object) -> dict[int, bytes]:
    if isinstance(value, dict):
        return value
    ring: dict[int, bytes] = {}
    for item in filter(None, (part.strip() for part in str(value).split(","))):
        number, _, text = item.partition(":")
        try:
            key = base64.b64decode(text.translate(_URL_SAFE), validate=True)
            number_ok = 0 < int(number) < 256 and int(number) not in ring
        except (ValueError, binascii.Error):
            key, number_ok = b"", False
        if not number_ok or len(key) != KEY_BYTES:
            raise ValueError(
                "should be number:key pairs like 2:BASE64,1:BASE64, the first one encrypting, numbers 1 to 255 and "
                "each only once, each key 32 bytes in base64; `python -m tenantsync keys generate` makes one"
            )
        ring[int(number)] = key
    if not ring:
        raise ValueError("holds no key; `python -m tenantsync keys generate` makes one")
    return ring


def _modules(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    names = tuple(item.strip() for item in str(value).split(",") if item.strip())
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError("should be modules like acme.tasks,acme.reports")
    return names


def _flower_login(value: SecretStr) -> SecretStr:
    user, _, password = value.get_secret_value().partition(":")
    if not user or not password:
        raise ValueError("should look like user:password")
    return value


def _lease(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(seconds=60):
        raise ValueError("should lie between 1s and 60s: recovery waits for it, heartbeats renew it")
    return value


def _grace(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(minutes=10):
        raise ValueError("should lie between 1s and 10m: whatever stops workers waits for it")
    return value


def _origins(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    origins = tuple(item.strip().rstrip("/") for item in str(value).split(",") if item.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query or "@" in origin:
            raise ValueError("should be origins like https://app.example.com,https://beta.example.com, without paths")
    return origins


def _secret_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SECRET_KEY_LENGTH or len(set(text)) < SECRET_KEY_LENGTH // 4:
        raise ValueError(
            f"should be {SECRET_KEY_LENGTH} random characters or more; "
            "python -c 'import secrets; print(secrets.token_urlsafe(48))' makes one"
        )
    return value


def _interval(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise ValueError("should be 1s or more; a bare number counts milliseconds")
    return value


PostgresUrl = Annotated[str, _address(("postgres", "postgresql"), "postgresql://user:password@host:5432/database")]
RedisUrl = Annotated[str, _address(("redis", "rediss"), "redis://:password@host:6379/0")]
HttpUrl = Annotated[str, _address(("http", "https"), "https://host/path")]
Networks = Annotated[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
KeyRing = Annotated[dict[int, bytes], NoDecode, BeforeValidator(_key_ring)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
SecretKey = Annotated[SecretStr, AfterValidator(_secret_key)]
FlowerLogin = Annotated[SecretStr, AfterValidator(_flower_login)]
Lease = Annotated[Duration, AfterValidator(_lease)]
Modules = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_modules)]
Grace = Annotated[Duration, AfterValidator(_grace)]
Interval = Annotated[Duration, AfterValidator(_interval)]


class Settings(BaseSettings):
    """Everything that can be set from outside. Field names are the environment's names in lower case.

    Durations take `30s`, `5m`, `2h`, `7d` or a bare number of milliseconds. `docs/configuration.md`
    describes every field and a test holds it to that.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: PostgresUrl = Field(description="Postgres; may go through PgBouncer in transaction mode")
    direct_url: PostgresUrl | None = Field(None, description="Postgres without a pooler, for migrations")
    replica_url: PostgresUrl | None = Field(None, description="A read replica for metrics")
    redis_url: RedisUrl = Field(description="Celery's broker: Redis 6.2 or newer, or Valkey")
    supabase_url: HttpUrl = Field(description="The Supabase project's address")
    supabase_secret_key: SecretStr = Field(min_length=8, description="A secret (service role) API key")
    encryption_keys: KeyRing = Field(repr=False, description="The key ring for account credentials")

    google_client_id: str | None = Field(None, description="OAuth client of the Google project")
    google_client_secret: SecretStr | None = Field(None, validate_default=True, description="Its secret")
    google_api_endpoint: HttpUrl = Field(
        "https://www.googleapis.com/calendar/v3/", description="Google Calendar's base address"
    )
    google_token_uri: HttpUrl = Field("https://oauth2.googleapis.com/token", description="Google's OAuth token address")
    google_quota_per_minute: int = Field(
        10_000, ge=10, le=10_000_000, description="Requests a minute that Google allows the operator's project"
    )
    google_user_quota_per_minute: int = Field(
        600, ge=10, le=1_000_000, description="Requests a minute that Google allows for one account"
    )
    caldav_server_quota_per_minute: int = Field(
        3_000, ge=10, le=1_000_000, description="Requests a minute that one CalDAV server gets"
    )
    caldav_server_concurrency: int = Field(
        16, ge=1, le=1_000, description="Requests that one CalDAV server gets at a time"
    )
    outbound_allowed_networks: Networks = Field(
        (), description="Private networks that an address typed by a tenant may lead to"
    )
    flower_basic_auth: FlowerLogin | None = Field(None, description="user:password for Flower")

    secret_key: SecretKey | None = Field(None, description="What log-ins are signed with; the web process needs it")
    public_url: HttpUrl | None = Field(None, description="Where people's browsers find the web process")
    supabase_jwt_secret: SecretStr | None = Field(
        None, min_length=32, description="The Supabase project's shared secret, to accept its users' tokens"
    )
    supabase_jwks_url: HttpUrl | None = Field(
        None, description="Where the Supabase project shows its public keys, to accept its users' tokens"
    )
    web_allowed_origins: Origins = Field((), description="Other origins whose pages may call the API")
    web_trusted_proxies: Networks = Field((), description="Proxies whose X-Forwarded-For is believed")
    web_db_pool_size: int = Field(8, ge=2, le=100, description="Postgres connections of a web process")
    flower_url: HttpUrl | None = Field(None, description="Where people's browsers find Flower, for a link to it")
    metrics_token: SecretStr | None = Field(None, min_length=16, description="A bearer token that may read /metrics")

    sync_interval: Interval = Field(timedelta(seconds=60), description="How often a calendar is polled")
    worker_batch_size: int = Field(200, ge=1, le=1000, description="Units that one message carries")
    worker_max_retries: int = Field(3, ge=0, le=20, description="Quick retries of a failing calendar")
    worker_retry_delay: Duration = Field(timedelta(seconds=1), description="Delay before the first retry")
    worker_db_pool_size: int = Field(5, ge=1, le=100, description="Postgres connections of a process")
    worker_shutdown_grace: Grace = Field(
        timedelta(seconds=10), description="What a worker told to stop lets its runs finish in"
    )
    sync_unit_deadline: Duration = Field(timedelta(seconds=30), description="Longest run of a unit")
    sync_bulk_deadline: Duration = Field(timedelta(minutes=30), description="Longest first sync or resync")
    sync_isolated_deadline: Duration = Field(timedelta(minutes=5), description="Longest run of an isolated unit")
    sync_isolated_memory: int = Field(512, ge=64, le=65_536, description="MB that an isolated run may take")
    sync_lease: Lease = Field(timedelta(seconds=5), description="How long a run holds its unit unrenewed")
    sync_retry_ceiling: Duration = Field(
        timedelta(hours=1), validate_default=True, description="Longest backoff of a calendar"
    )
    sync_confirm_empty_after: Duration = Field(
        timedelta(minutes=5), description="Wait before an empty full listing is asked for again"
    )
    task_handlers: Modules = Field((), description="Modules with task handlers of one's own")
    mirror_batch_size: int = Field(1000, ge=1, le=5000, description="Rows of one call to Supabase")
    retention_history: Duration = Field(timedelta(days=90), description="How long run history is kept")
    retention_tombstones: Duration = Field(timedelta(days=30), description="How long deletions are kept")
    log_format: Literal["json", "console"] = Field("json", description="Log lines for machines or for people")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe line")
    trace_file: Path | None = Field(None, description="A file for traces of the protocol")

    # On the later field of each pair, not on the whole: so they are named together with whatever else is wrong.
    @field_validator("google_client_secret")
    @classmethod
    def _goes_with_its_id(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if (value is None) != (info.data.get("google_client_id") is None):
            raise ValueError("belongs together with GOOGLE_CLIENT_ID: set both or neither")
        return value

    @field_validator("sync_retry_ceiling")
    @classmethod
    def _holds_the_first_retry(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if value < info.data.get("worker_retry_delay", value):
            raise ValueError("should not be shorter than WORKER_RETRY_DELAY")
        return value

    @property
    def migration_url(self) -> str:
        """The address for what needs a session of its own."""
        return self.direct_url or self.database_url


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"][:1]).upper()
        reason = "is missing" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
        field = Settings.model_fields.get(name.lower())
        about = f" [{field.description}]" if field is not None and field.description else ""
        lines.append(f"  {name}: {reason}{about}" if name else f"  {reason}")
    return "The environment cannot be used:\n" + "\n".join(lines) + "\nSee docs/configuration.md and .env.example."


def load_settings(**overrides: object) -> Settings:
    """Read the environment (and `.env`); `overrides` win, by field name.

    Raises SettingsError, which names every missing, malformed or contradictory variable at once and
    never repeats a value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once."""
    return load_settings()
