"""The environment: what is missing, malformed or contradictory is named at once, and no value is repeated."""

import base64
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from config.settings import Settings, SettingsError, load_settings

KEY_1, KEY_2 = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (251, 252))
REQUIRED = {
    "DATABASE_URL": "postgresql://user:hunter2@db.internal:5432/tenantsync",
    "REDIS_URL": "redis://:hunter2@cache.internal:6379/0",
    "SUPABASE_URL": "https://project.supabase.co",
    "SUPABASE_SECRET_KEY": "sb_secret_hunter2",
    "ENCRYPTION_KEYS": f"1:{KEY_1}",
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings from an environment that has what is required, and these changes; None takes a variable away."""

    def load(**changes: str | None) -> Settings:
        for name, value in {**REQUIRED, **changes}.items():
            monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv(name, value or "")
        for name in [name for name, value in changes.items() if value is None]:
            monkeypatch.delenv(name)
        return load_settings(_env_file=None)

    return load


@pytest.fixture
def refused(given: Any) -> Any:
    """The message with which an environment is refused."""

    def load(**changes: str | None) -> str:
        with pytest.raises(SettingsError) as error:
            given(**changes)
        return str(error.value)

    return load


def test_what_is_required_suffices(given: Any) -> None:
    settings = given()

    assert settings.database_url == REQUIRED["DATABASE_URL"]
    assert settings.migration_url == REQUIRED["DATABASE_URL"]
    assert settings.sync_interval == timedelta(seconds=60)
    assert settings.outbound_allowed_networks == ()


def test_migrations_take_the_direct_address_where_there_is_one(given: Any) -> None:
    assert given(DIRECT_URL="postgresql://direct.internal/x").migration_url == "postgresql://direct.internal/x"


def test_everything_that_is_missing_is_named_at_once(refused: Any) -> None:
    message = refused(**dict.fromkeys(REQUIRED))

    assert [name for name in REQUIRED if f"{name}: is missing" in message] == list(REQUIRED)


@pytest.mark.parametrize("missing", REQUIRED)
def test_one_that_is_missing_is_named_alone(refused: Any, missing: str) -> None:
    message = refused(**{missing: None})

    assert f"{missing}: is missing" in message
    assert [name for name in REQUIRED if name in message] == [missing]


@pytest.mark.parametrize("name", ["DIRECT_URL", "SYNC_INTERVAL", "OUTBOUND_ALLOWED_NETWORKS", "FLOWER_BASIC_AUTH"])
def test_an_empty_variable_counts_as_unset(given: Any, name: str) -> None:
    assert given(**{name: ""}) == given()


def test_a_required_variable_that_is_empty_is_missing(refused: Any) -> None:
    assert "REDIS_URL: is missing" in refused(REDIS_URL="")


MALFORMED = {
    "DATABASE_URL": "mysql://sentinel",
    "DIRECT_URL": "sentinel",
    "REPLICA_URL": "postgresql:///sentinel",
    "REDIS_URL": "http://sentinel",
    "SUPABASE_URL": "sentinel.supabase.co",
    "SUPABASE_SECRET_KEY": "sentin",
    "ENCRYPTION_KEYS": "sentinel",
    "GOOGLE_API_ENDPOINT": "ftp://sentinel",
    "GOOGLE_TOKEN_URI": "sentinel",
    "OUTBOUND_ALLOWED_NETWORKS": "10.0.0.0/8,sentinel",
    "FLOWER_BASIC_AUTH": "sentinel",
    "SYNC_INTERVAL": "sentinel",
    "WORKER_BATCH_SIZE": "sentinel",
    "WORKER_MAX_RETRIES": "-sentinel",
    "WORKER_RETRY_DELAY": "5 sentinels",
    "WORKER_DB_POOL_SIZE": "0.5sentinel",
    "SYNC_UNIT_DEADLINE": "1w sentinel",
    "RETENTION_HISTORY": "sentinel d",
    "MIRROR_BATCH_SIZE": "sentinel",
    "TASK_HANDLERS": "acme.tasks,/sentinel.py",
    "LOG_FORMAT": "sentinel",
    "LOG_LEVEL": "sentinel",
}


def test_everything_that_is_malformed_is_named_at_once(refused: Any) -> None:
    message = refused(**MALFORMED)

    assert [name for name in MALFORMED if f"  {name}: " in message] == list(MALFORMED)


@pytest.mark.parametrize(("name", "value"), MALFORMED.items(), ids=MALFORMED)
def test_what_is_malformed_is_named_and_its_value_is_not_repeated(refused: Any, name: str, value: str) -> None:
    message = refused(**{name: value})

    assert f"  {name}: " in message
    assert "sentin" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://user:pass[hunter2]word@host/db"),
        ("REDIS_URL", "redis://:pass[hunter2]word@host/0"),
        ("DATABASE_URL", "user:hunter2@host/db"),
        ("SUPABASE_SECRET_KEY", "hunter2"),
        ("ENCRYPTION_KEYS", "1:hunter2"),
        ("FLOWER_BASIC_AUTH", "hunter2"),
    ],
)
def test_a_refusal_never_shows_a_secret(refused: Any, name: str, value: str) -> None:
    message = refused(**{name: value})

    assert name in message
    assert "hunter2" not in message


def test_neither_text_nor_repr_of_settings_shows_a_secret(given: Any) -> None:
    settings = given(FLOWER_BASIC_AUTH="ann:hunter2", GOOGLE_CLIENT_ID="c", GOOGLE_CLIENT_SECRET="hunter2")

    shown = repr(settings) + str(settings)
    assert "sb_secret" not in shown
    assert "ann:hunter2" not in shown
    assert KEY_1 not in shown
    assert repr(bytes([251]) * 3)[2:-1] not in shown


CONTRADICTIONS = {
    "GOOGLE_CLIENT_SECRET": {"GOOGLE_CLIENT_ID": "x"},
    "SYNC_LEASE": {"SYNC_LEASE": "2m"},
    "SYNC_INTERVAL": {"SYNC_INTERVAL": "60"},
    "WORKER_RETRY_DELAY": {"WORKER_RETRY_DELAY": "5h"},
}


@pytest.mark.parametrize("value", ["0", "9", "-600", "600/min", "1e9"])
@pytest.mark.parametrize(
    "name",
    ["GOOGLE_QUOTA_PER_MINUTE", "GOOGLE_USER_QUOTA_PER_MINUTE", "CALDAV_SERVER_QUOTA_PER_MINUTE"],
)
def test_a_quota_out_of_range_is_refused_by_name(refused: Any, name: str, value: str) -> None:
    assert name in refused(**{name: value})


@pytest.mark.parametrize("value", ["0", "1001", "-1", "many"])
def test_a_number_at_a_time_out_of_range_is_refused_by_name(refused: Any, value: str) -> None:
    assert "CALDAV_SERVER_CONCURRENCY" in refused(CALDAV_SERVER_CONCURRENCY=value)


@pytest.mark.parametrize(("named", "changes"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_a_contradiction_is_named(refused: Any, named: str, changes: dict[str, str]) -> None:
    assert named in refused(**changes)


def test_contradictions_are_all_named_at_once(refused: Any) -> None:
    message = refused(**{name: value for changes in CONTRADICTIONS.values() for name, value in changes.items()})

    assert [name for name in CONTRADICTIONS if name in message] == list(CONTRADICTIONS)


def test_missing_malformed_and_contradictory_are_named_together(refused: Any) -> None:
    message = refused(REDIS_URL=None, WORKER_BATCH_SIZE="many", GOOGLE_CLIENT_ID="x")

    wanted = ["REDIS_URL", "WORKER_BATCH_SIZE", "GOOGLE_CLIENT_SECRET"]
    assert [name for name in wanted if name in message] == wanted


def test_google_may_be_left_out_altogether(given: Any) -> None:
    assert given().google_client_id is None


# Durations


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("30000", timedelta(seconds=30)),
        ("1000", timedelta(seconds=1)),
        ("1500ms", timedelta(seconds=1.5)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("1.5h", timedelta(minutes=90)),
        (" 45s ", timedelta(seconds=45)),
    ],
)
def test_a_duration_is_what_people_write(given: Any, written: str, meant: timedelta) -> None:
    assert given(SYNC_INTERVAL=written).sync_interval == meant


@pytest.mark.parametrize(
    "written", ["-5s", "s", "5 m", "5min", "1h30m", "inf", "nan", "1e3", "0x10", "999999999999999d", "9" * 400]
)
def test_a_duration_that_is_none_is_refused_by_name(refused: Any, written: str) -> None:
    assert "SYNC_UNIT_DEADLINE" in refused(SYNC_UNIT_DEADLINE=written)


def test_the_seeds_millisecond_names_mean_milliseconds(given: Any) -> None:
    settings = given(SYNC_INTERVAL="30000", WORKER_RETRY_DELAY="1000", WORKER_BATCH_SIZE="10", WORKER_MAX_RETRIES="3")

    assert settings.sync_interval == timedelta(seconds=30)
    assert settings.worker_retry_delay == timedelta(seconds=1)
    assert (settings.worker_batch_size, settings.worker_max_retries) == (10, 3)


def test_seconds_written_where_milliseconds_are_meant_are_noticed(refused: Any) -> None:
    message = refused(SYNC_INTERVAL="30")

    assert "SYNC_INTERVAL" in message
    assert "milliseconds" in message


# The key ring


def test_the_first_key_of_the_ring_comes_first(given: Any) -> None:
    ring = given(ENCRYPTION_KEYS=f" 2:{KEY_2} , 1:{KEY_1} ").encryption_keys

    assert list(ring.items()) == [(2, bytes([252]) * 32), (1, bytes([251]) * 32)]


def test_a_key_in_either_alphabet_of_base64_is_taken(given: Any) -> None:
    plain = base64.b64encode(bytes([251]) * 32).decode()

    assert given(ENCRYPTION_KEYS=f"1:{plain}").encryption_keys == {1: bytes([251]) * 32}


@pytest.mark.parametrize(
    "ring",
    [
        ",",
        KEY_1,
        f"0:{KEY_1}",
        f"256:{KEY_1}",
        f"-1:{KEY_1}",
        f"one:{KEY_1}",
        f"1:{KEY_1[:-4]}",
        f"1:{KEY_1}{KEY_1}",
        f"1:{KEY_1[:20]}*{KEY_1[20:]}",
        f"2:{KEY_2},1:short",
        f"1:{KEY_1},1:{KEY_2}",
    ],
    ids=[
        "a comma", "no number", "number 0", "number 256", "a negative number", "a word", "too short",
        "too long", "not base64", "a bad second key", "a number twice",
    ],
)  # fmt: skip
def test_a_key_ring_that_cannot_be_right_is_refused(refused: Any, ring: str) -> None:
    message = refused(ENCRYPTION_KEYS=ring)

    assert "ENCRYPTION_KEYS" in message
    assert "keys generate" in message
    assert KEY_1 not in message


# Modules


def test_task_handlers_are_a_list_of_modules(given: Any) -> None:
    assert given().task_handlers == ()
    assert given(TASK_HANDLERS=" acme.tasks, acme.reports,").task_handlers == ("acme.tasks", "acme.reports")


# Networks


def test_networks_are_a_list(given: Any) -> None:
    settings = given(OUTBOUND_ALLOWED_NETWORKS=" 10.0.0.0/8 ,fd00::/8,192.168.1.7, ")

    assert settings.outbound_allowed_networks == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
        ip_network("192.168.1.7/32"),
    )


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0-10.0.0.9", "office.internal", "*"])
def test_what_is_no_network_is_refused_with_an_example(refused: Any, networks: str) -> None:
    message = refused(OUTBOUND_ALLOWED_NETWORKS=f"fd00::/8,{networks}")

    assert "OUTBOUND_ALLOWED_NETWORKS" in message
    assert "10.0.0.0/8,fd00::/8" in message


@pytest.mark.parametrize("login", ["user", ":password", "user:"])
def test_flowers_login_is_a_user_and_a_password(refused: Any, login: str) -> None:
    assert "user:password" in refused(FLOWER_BASIC_AUTH=login)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_BATCH_SIZE", "0"),
        ("WORKER_BATCH_SIZE", "1001"),
        ("WORKER_DB_POOL_SIZE", "0"),
        ("MIRROR_BATCH_SIZE", "5001"),
    ],
)
def test_a_number_out_of_range_is_named(refused: Any, name: str, value: str) -> None:
    assert f"  {name}: " in refused(**{name: value})


def test_settings_do_not_change(given: Any) -> None:
    settings = given()

    with pytest.raises(ValueError, match="frozen"):
        settings.worker_batch_size = 5
