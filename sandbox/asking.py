"""A tenant's web app, as its members have it: it asks for tasks through supabase-py and sees what comes of them."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from rich.markup import escape
from sqlalchemy import text

from db.repositories import questions
from sandbox.population import Planted
from sandbox.telling import Teller
from sandbox.world import World
from supabase import ClientOptions, create_client
from tenantsync.processes import service as processes

PATIENCE = 30.0  # seconds; a task takes one or two
SHOWN = 9  # lines of a report
ENDS = ("completed", "failed", "cancelled")
WORKSPACE = text("select workspace_id from sync.workspaces where tenant_id = :tenant order by workspace_id limit 1")
TASK = text("select id from worker.tasks where tenant_id = :tenant and supabase_task_id = :asked")


class Member:
    """A signed-in member of a tenant, with supabase-py and nothing else."""

    def __init__(self, world: World, tenant_id: UUID, workspace_id: UUID) -> None:
        self.tenant_id, self.workspace_id = tenant_id, workspace_id
        # A client of our own: supabase-py's has a time limit that it calls deprecated.
        self._http = httpx.Client(timeout=10, trust_env=False)
        token = world.supabase.user_token(tenant_id)
        options = ClientOptions(headers={"Authorization": f"Bearer {token}"}, httpx_client=self._http)
        self._client = create_client(world.settings.supabase_url, world.supabase.publishable_key, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, kind: str, payload: dict[str, Any]) -> str:
        """Insert a task; its id."""
        row = {
            "tenant_id": str(self.tenant_id),
            "workspace_id": str(self.workspace_id),
            "kind": kind,
            "payload": payload,
        }
        rows: Any = self._client.table("tasks").insert(row).execute().data
        return str(rows[0]["id"])

    def see(self, task: str) -> dict[str, Any]:
        """A task as it stands."""
        rows: Any = self._client.table("tasks").select("*").eq("id", task).execute().data
        found: dict[str, Any] = rows[0]
        return found


def member_of(world: World, planted: Planted) -> Member:
    """A member of a planted tenant, in its first workspace."""
    with world.database.statement() as connection:
        workspace_id = connection.execute(WORKSPACE, {"tenant": planted.tenant_id}).scalar_one()
    return Member(world, planted.tenant_id, workspace_id)


# The member's token lies in a file that nobody else reads, and on no command line.
SCRIPT = """\
#!/bin/sh
# Asks for a task as a member of {name} and shows the row: sh ask.sh KIND PAYLOAD
set -eu
curl -sS -K {secrets} -X POST '{url}/rest/v1/tasks' -H 'Prefer: return=representation' \\
  -H 'Content-Type: application/json' \\
  -d "{{\\"tenant_id\\": \\"{tenant}\\", \\"workspace_id\\": \\"{workspace}\\",
       \\"kind\\": \\"$1\\", \\"payload\\": $2}}"
echo
"""


def written_down(world: World, planted: Planted) -> Path:
    """A script by which anybody here can ask for a task as a member of a tenant, for a day."""
    with world.database.statement() as connection:
        workspace_id = connection.execute(WORKSPACE, {"tenant": planted.tenant_id}).scalar_one()
    token = world.supabase.user_token(planted.tenant_id, lifetime=timedelta(days=1))
    secrets, script = world.folder / "member.curl", world.folder / "ask.sh"
    secrets.touch(mode=0o600)
    secrets.write_text(
        f'header = "apikey: {world.supabase.publishable_key}"\nheader = "Authorization: Bearer {token}"\n'
    )
    about = {"name": planted.name, "tenant": planted.tenant_id, "workspace": workspace_id}
    script.write_text(SCRIPT.format(secrets=secrets, url=world.settings.supabase_url, **about))
    return script


class Asking:
    """The demo's chapter: a task that comes back, one that fails clearly, one that asks a person."""

    def __init__(self, world: World, tell: Teller, planted: Planted) -> None:
        self._world, self._tell, self._planted = world, tell, planted

    def run(self) -> dict[str, Any]:
        """Tell the story; what came of each task by its kind."""
        with member_of(self._world, self._planted) as self._member:
            return {
                "calendar.report": self._report(),
                "demo.fail": self._failure(),
                "demo.choose": self._choice(),
            }

    def _report(self) -> str:
        asked = {"week_start": "2026-11-16", "time_zone": "Asia/Tokyo", "language": "ja"}
        seen = self._await(self._ask("calendar.report", asked), ENDS)
        result = seen["result"] or {"text": "", "totals": None}
        for line in result["text"].splitlines()[:SHOWN]:
            self._tell.say(f"  {escape(line)}")
        self._tell.say(f"  … {result['totals']}")
        return str(seen["status"])

    def _failure(self) -> str:
        seen = self._await(self._ask("demo.fail", {}), ENDS)
        self._tell.say(f"  {seen['status']}: {escape(str(seen['error_message']))}")
        return str(seen["status"])

    def _choice(self) -> str:
        task = self._ask("demo.choose", {"options": ["Monday", "Wednesday", "Friday"]})
        self._await(task, ("waiting", *ENDS))
        self._answer(task, 1)
        seen = self._await(task, ENDS)
        self._tell.say(f"  {seen['status']}: {seen['result']}")
        return str(seen["status"])

    def _ask(self, kind: str, payload: dict[str, Any]) -> str:
        self._tell.say(f"a member of {self._planted.name} inserts a row into tasks: {kind} {payload}")
        return self._member.ask(kind, payload)

    def _await(self, task: str, states: tuple[str, ...]) -> dict[str, Any]:
        began = time.monotonic()
        self._tell.wait(
            lambda: self._member.see(task)["status"] in states,
            lambda: f"the task is {self._member.see(task)['status']}",
            timeout=PATIENCE,
        )
        seen = self._member.see(task)
        self._tell.say(f"  {seen['status']} at Supabase after {time.monotonic() - began:.1f} s")
        return seen

    def _answer(self, task: str, chosen: int) -> None:
        """Answer what a process asks, as a person does in the dashboard."""
        with self._world.database.transaction() as connection:
            about = {"tenant": self._planted.tenant_id, "asked": task}
            process_id = connection.execute(TASK, about).scalar_one()
            (question,) = questions.listed(
                connection, tenant_id=self._planted.tenant_id, process_id=process_id, states=["open"]
            )
            titles = [str(option["title"]) for option in question.options]
            self._tell.say(f"  it asks: {question.prompt} {' / '.join(titles)}; the answer is {titles[chosen]}")
            processes.answer(
                connection,
                tenant_id=self._planted.tenant_id,
                process_id=process_id,
                question_id=question.question_id,
                answer={"selected_index": chosen},
                by="demo",
            )
