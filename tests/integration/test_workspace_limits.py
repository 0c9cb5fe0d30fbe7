"""Members of some workspaces only: what is another workspace's, or the whole tenant's, is not there for them."""

import time
from collections.abc import Callable
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from db.repositories import tenants
from db.session import Database
from tests.support import process_world
from tests.support.process_world import Asked
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]

SUPABASE_SECRET = "supabase-0123456789-abcdefghijklmnopqrstuvwxyz"


class Two:
    """A tenant of two workspaces, and a member of the first one. Each has a task and a process that asks."""

    def __init__(self, web: Web, database: Database) -> None:
        self.web = web
        self.tenant_id, self.own = web.tenant()
        with database.transaction() as connection:
            self.other = tenants.add_workspace(connection, tenant_id=self.tenant_id, name="boardroom")
        self.tasks: dict[UUID | None, UUID] = {}
        self.asked: dict[UUID | None, Asked] = {}
        for place in (self.own, self.other, None):
            with database.transaction() as connection:
                title = f"of {place}"
                self.asked[place] = process_world.waiting(connection, self.tenant_id, workspace_id=place, title=title)
                self.tasks[place] = process_world.task(connection, self.tenant_id, workspace_id=place)
        with database.transaction() as connection:
            self.below = process_world.pending(
                connection, self.tenant_id, workspace_id=self.other, parent_id=self.asked[self.own].process_id
            )

    def hidden(self) -> set[str]:
        """Ids that the member is not to meet anywhere."""
        asked = [self.asked[place] for place in (self.other, None)]
        ids = [self.below, *(self.tasks[place] for place in (self.other, None))]
        return {str(one) for one in (*ids, *(a.process_id for a in asked), *(a.question_id for a in asked))}

    def member(self, **app_metadata: object) -> httpx.Client:
        """A client of a Supabase user, of the first workspace unless told otherwise."""
        given = {"tenant_id": str(self.tenant_id), "workspace_ids": [str(self.own)]} | app_metadata
        claims = {
            "iss": "http://127.0.0.1:1/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(uuid4()),
            "exp": int(time.time()) + 600,
            "app_metadata": given,
        }
        client = self.web.client()
        client.headers["Authorization"] = f"Bearer {jwt.encode(claims, SUPABASE_SECRET, algorithm='HS256')}"
        return client


@pytest.fixture
def two(make_web: Callable[..., Web], database: Database) -> Two:
    return Two(make_web(supabase_jwt_secret=SUPABASE_SECRET), database)


def test_lists_and_pages_hold_one_workspaces_rows_alone(two: Two) -> None:
    client = two.member()
    own = two.asked[two.own].process_id
    paths = ["/api/v1/processes", "/api/v1/tasks", "/api/v1/runs", "/processes", "/tasks", "/runs"]
    paths += [f"/api/v1/processes?parent={own}", f"/processes/{own}", f"/tenants/{two.tenant_id}"]

    told = {path: client.get(path).text for path in paths}

    assert {path: [one for one in two.hidden() if one in text] for path, text in told.items()} == {
        path: [] for path in paths
    }
    assert str(own) in told["/api/v1/processes"]
    assert str(two.tasks[two.own]) in told["/api/v1/tasks"]


def test_what_is_another_workspaces_or_the_tenants_is_not_found(two: Two) -> None:
    client = two.member()
    paths = []
    for place in (two.other, None):
        asked, task = two.asked[place], two.tasks[place]
        process = f"/api/v1/processes/{asked.process_id}"
        paths += [("GET", process + end) for end in ("", "/events", "/stream", "/undelivered", "/questions")]
        paths += [("POST", f"{process}/{end}") for end in ("pause", "resume", "cancel")]
        paths += [("POST", f"{process}/questions/{asked.question_id}/answer"), ("POST", f"{process}/acknowledge")]
        paths += [("GET", f"/api/v1/tasks/{task}{end}") for end in ("", "/logs")]
        paths += [("POST", f"/api/v1/tasks/{task}/cancel"), ("GET", f"/api/v1/runs/{task}")]
        paths += [("GET", f"/processes/{asked.process_id}"), ("GET", f"/runs/{task}")]
    bodies = {"answer": {"answer": {"selected_index": 0}}, "acknowledge": {"sequence": 1}}

    answers = {
        (method, path): client.request(method, path, json=bodies.get(path.rpartition("/")[2])).status_code
        for method, path in paths
    }

    assert set(answers.values()) == {404}, answers


def test_a_task_needs_one_of_ones_own_workspaces(two: Two) -> None:
    client = two.member()
    report = {"kind": "calendar.report", "payload": {"week_start": "2026-11-16"}}

    asked = [
        client.post("/api/v1/tasks", json=report | more).status_code
        for more in ({}, {"workspace_id": None}, {"workspace_id": str(two.other)}, {"workspace_id": str(two.own)})
    ]

    assert asked == [422, 422, 404, 201]


def test_tasks_are_counted_in_ones_own_workspaces(two: Two) -> None:
    counted = [client.get("/api/v1/worker-status").json() for client in (two.member(), two.member(workspace_ids=[]))]

    assert [one["worker_stats"]["pending"] for one in counted] == [1, 0]


def test_whoever_is_kept_to_workspaces_administers_no_tenant(two: Two) -> None:
    client = two.member(role="admin")
    user = {"email": "new@example.test", "password": "long enough 1", "role": "admin"}

    assert client.get("/api/v1/auth/me").json()["role"] == "member"
    assert client.post("/api/v1/users", json=user).status_code == 403
    assert client.get("/people").status_code == 404


def test_workspaces_that_are_null_are_none_as_they_are_at_supabase(two: Two) -> None:
    client = two.member(workspace_ids=None)

    assert client.get("/api/v1/auth/me").json()["workspace_ids"] == []
    assert client.get("/api/v1/processes").json()["items"] == []
