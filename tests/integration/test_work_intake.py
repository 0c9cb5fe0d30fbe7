"""Tasks that web apps ask for at Supabase: taken in once each, refused with a reason, brought back."""



from tests.support.desk import Desk
from tests.support.fleet import TenantHandle
from tests.support.shared_database import database_url, shared_database

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]
__all__ = ["database_url", "shared_database"]


def test_a_task_comes_back_with_its_result(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, payload={"words": ["dear", "friend"], "copies": 2}, created_by="user-7")

    seen = desk.done(asked)

    assert (seen["status"], seen["result"], seen["error_message"]) == (
        "completed",
        {"text": "dear friend", "copies": 2},
        None,
    )
    assert seen["started_at"] <= seen["completed_at"]
    assert seen["worker_id"] == "tasks@one"
    assert seen["version"] > 0
    assert desk.task(asked)["requested_by"] == "user-7"
    assert desk.process(asked)["started_by"] == "user-7"
    assert desk.steps(asked)["compose"]["success"] is True
    assert desk.events(asked)[0] == "process_created"
    assert desk.events(asked)[-1] == "process_completed"
