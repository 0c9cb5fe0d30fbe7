"""schemathesis against the whole API, as each role: no failure, and every operation succeeds for somebody.

Requests that are meant to be good name real things (tests/support/api_world.py), for a suite of 404s would prove
nothing; requests that are meant to be bad are left as they are.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from schemathesis import openapi
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from tenantsync.identity.roles import Role
from tests.support.api_world import ApiWorld
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]

EXAMPLES = 6
ROLES = (*Role, None)
MEANT_WELL = {  # a rule that no schema tells: such a request is refused though its schema allows it
    "createTask", "createUser", "changeUser", "answerQuestion", "listProcesses", "listTasks", "listUsers",
    "listUndelivered", "listQuestions", "listTaskLogs", "listRuns", "setShare", "pauseTenant", "syncTenant",
    "retryParkedRows", "dropParkedRows", "listTenants", "listAccounts", "listCalendars", "listUnits",
    "listParkedUnits", "listParkedRows",
}  # fmt: skip
USED_UP = {"logOut"}  # ends the session that it is called with


def config(url: str, *, thorough: bool) -> SchemathesisConfig:
    """Every check; for one role also every boundary of every schema, which are the same for all of them."""
    ruled = [
        {
            "include-operation-id": name,
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", 401, 403, 404, 409, 422, 429]}},
        }
        for name in sorted(MEANT_WELL)
    ]
    return SchemathesisConfig.from_dict(
        {
            "base-url": url,
            "workers": 1,
            "continue-on-failure": True,
            "request-timeout": 10,
            "auth": {"auto-signup": False},
            "seed": 4,
            "generation": {"max-examples": EXAMPLES, "no-shrink": True, "allow-extra-parameters": False},
            "phases": {
                "examples": {"enabled": True},
                "coverage": {"enabled": thorough, "unexpected-methods": ["put", "options"]},
                "fuzzing": {"enabled": True},
                "stateful": {"enabled": False},
            },
            "operations": ruled,
        }
    )


class Judge:
    """What came of all requests, over the roles."""

    def __init__(self) -> None:
        self.examples: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.failures: list[str] = []
        self.operations: set[str] = set()

    def run(self, world: ApiWorld, role: Role | None) -> None:
        schema = openapi.from_url(
            f"{world.web.url}/api/v1/openapi.json", config=config(world.web.url, thorough=role is Role.OPERATOR)
        )
        _prepare(schema, world, role)
        ids = {op.ok().label: op.ok().definition.raw["operationId"] for op in schema.get_all_operations()}
        self.operations |= set(ids.values())
        for event in from_schema(schema).execute():
            if isinstance(event, events.NonFatalError | events.FatalError):
                self.failures.append(f"{role}: {event}")
            if isinstance(event, events.ScenarioFinished):
                self._note(event, ids, role)

    def _note(self, event: events.ScenarioFinished, ids: Mapping[str, str], role: Role | None) -> None:
        recorder = event.recorder
        name = ids.get(recorder.label, recorder.label)
        for interaction in recorder.interactions.values():
            self.examples[str(role)] += 1
            if interaction.response is not None and 200 <= interaction.response.status_code < 300:
                self.good[name] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.status == Status.FAILURE:
                    self.failures.append(f"{role} {name} {_curl(recorder, case_id)}: {_told(check)}")


def _curl(recorder: Any, case_id: str) -> str:
    return str(recorder.cases[case_id].value.as_curl_command())


def _told(check: Any) -> str:
    failure = check.failure_info.failure
    return f"{failure.title}: {failure.message}"


def _prepare(schema: Any, world: ApiWorld, role: Role | None) -> None:
    """Log the role in, and let good requests name real things."""

    schemathesis.hooks.unregister_all()

    @schemathesis.hook("before_call")
    def prepare(context: Any, case: Any, kwargs: Any) -> None:
        name = case.operation.definition.raw["operationId"]
        if name == "streamEvents" and (case.query or {}).get("follow") in (None, True, "true"):
            case.query = {**(case.query or {}), "follow": "false"}
        if case.meta is None or not case.meta.generation.mode.is_positive:
            return
        wanted = world.wanted(name, case.operation.path, role)
        case.path_parameters = {**(case.path_parameters or {}), **wanted.path}
        case.query = {**(case.query or {}), **wanted.query}
        if wanted.body is not None:
            case.body = wanted.body
        (case.headers or {}).pop("If-Match", None)
        if "Idempotency-Key" in (case.headers or {}):
            case.headers["Idempotency-Key"] = str(uuid4())

    if role is None:
        return

    @schema.auth(refresh_interval=None)
    class Login:
        def get(self, case: Any, context: Any) -> str:
            used_up = case.operation.definition.raw["operationId"] in USED_UP
            return world.passing_token(role) if used_up else world.tokens[role]

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers = case.headers or {}
            case.headers["Authorization"] = f"Bearer {data}"


@pytest.fixture
def judge() -> Iterator[Judge]:
    yield Judge()
    schemathesis.hooks.unregister_all()


@pytest.mark.timeout(300)
def test_the_api_is_as_it_is_described_for_everybody(web: Web, judge: Judge) -> None:
    world = ApiWorld.make(web)

    for role in ROLES:
        judge.run(world, role)

    told = f"schemathesis: {sum(judge.examples.values())} requests: {dict(judge.examples)}; 2xx: {dict(judge.good)}"
    sys.stdout.write(f"\n{told}\n")
    assert judge.failures == [], "\n".join(judge.failures)
    assert {name for name in judge.operations if not judge.good[name]} == set()
    assert min(judge.examples.values()) > 100
