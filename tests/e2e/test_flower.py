"""Flower: readable, behind a password, and without a secret."""

from collections.abc import Iterator

import httpx
import pytest
from pytest_celery import CeleryTestSetup

from sandbox.world import FLOWER_USER, World
from tests.support.worlds import add_tenant, eventually, titles

pytestmark = pytest.mark.timeout(180)
OUTSIDE = {"X-Forwarded-For": "203.0.113.7"}


@pytest.fixture(scope="module")
def flower(world: World, celery_setup: CeleryTestSetup) -> Iterator[httpx.Client]:
    """A logged-in client, when Flower has seen a batch run."""
    world.start_flower()
    with world.google.control() as google:
        tenant = add_tenant(world, google)
    eventually(lambda: bool(titles(world, tenant)), "the first sync")
    access = (FLOWER_USER, world.flower_password)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{world.flower_port}", auth=access, trust_env=False, timeout=20
    ) as client:
        eventually(lambda: "sync.run_batch" in client.get("/api/tasks?limit=200").text, "Flower hears of a batch")
        yield client


@pytest.mark.parametrize("page", ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"])
def test_every_page_wants_the_password(world: World, flower: httpx.Client, page: str) -> None:
    stranger = httpx.get(f"{flower.base_url}{page}", trust_env=False)

    assert stranger.status_code == 401
    assert flower.get(page).status_code == 200


@pytest.mark.parametrize("page", ["/metrics", "/healthcheck"])
def test_metrics_and_health_are_open_to_the_inside_alone(flower: httpx.Client, page: str) -> None:
    url = f"{flower.base_url}{page}"

    assert httpx.get(url, trust_env=False).status_code == 200
    assert httpx.get(url, headers=OUTSIDE, trust_env=False).status_code == 401
    assert flower.get(page, headers=OUTSIDE).status_code == 200


def test_tasks_have_readable_names_and_arguments(flower: httpx.Client) -> None:
    tasks = flower.get("/api/tasks?limit=500&taskname=sync.run_batch").json().values()

    assert tasks
    assert all("'units': " in task["kwargs"] and "'lane': " in task["kwargs"] for task in tasks)
    assert max(len(task["kwargs"]) for task in tasks) < 100


def test_no_page_shows_a_secret(world: World, flower: httpx.Client) -> None:
    pages = ["/", "/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks?limit=500", "/metrics"]
    shown = "".join(flower.get(page).text for page in pages)
    shown += flower.get("/worker/first@tenantsync").text

    settings = world.settings
    secrets = [
        settings.supabase_secret_key.get_secret_value(),
        world.environment["ENCRYPTION_KEYS"].partition(":")[2],
        world.environment["GOOGLE_CLIENT_SECRET"],
        world.flower_password,
        settings.database_url.rpartition("@")[0].rpartition(":")[2],
        settings.redis_url.rpartition("@")[0].rpartition(":")[2],
        "meeting 0",
        "@example.test",
    ]
    assert all(len(secret) > 5 for secret in secrets)
    assert [secret for secret in secrets if secret in shown] == []
