"""A client that is generated from the API's own description compiles, and works against the server it describes."""

import json
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.servers.node import find_node, install
from tenantsync.identity.roles import Role
from tests.support import typescript
from tests.support.web import PASSWORD, Web

pytest_plugins = ["tests.support.web_fixtures"]

# A first run on a machine installs from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

SOURCES = Path(__file__).parent / "generated"
GENERATOR = "node_modules/openapi-typescript/bin/cli.js"
COMPILER = "node_modules/typescript/bin/tsc"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The program's sources beside the packages that generate, compile and run it."""
    copy = tmp_path / "client"
    shutil.copytree(SOURCES, copy)
    (copy / "node_modules").symlink_to(install(find_node(), packages=SOURCES) / "node_modules")
    return copy


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_a_generated_client_logs_in_asks_for_a_task_follows_it_and_hears_what_is_wrong(
    module_web: Web, folder: Path
) -> None:
    tenant_id, _ = module_web.tenant()
    email = module_web.user(Role.MEMBER, tenant_id=tenant_id)
    (folder / "openapi.json").write_bytes(module_web.client().get("/api/v1/openapi.json").content)

    succeeded(typescript.run(folder, GENERATOR, "openapi.json", "-o", "api.ts"))
    succeeded(typescript.run(folder, COMPILER, "-p", "."))
    said = json.loads(succeeded(typescript.run(folder, "program.js", module_web.url, email, PASSWORD, str(uuid4()))))

    task = said["task"]["id"]
    assert said == {
        "task": {"id": task, "status": "pending"},
        "processes": [{"id": task, "state": "pending", "title": said["processes"][0]["title"]}],
        "events": ["1 process_created"],
        "problem": {"status": 404, "title": "Not Found"},
        "refused": {"status": 422, "field": ["body", "priority"]},
    }
