"""Follows a process as its environment says, and prints what comes as lines of JSON. Driven by the project's tests."""

import json
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tenantsync_client import ProcessStream, Refused, watch_process, watch_process_on_supabase


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def stream_for(options: dict[str, str]) -> ProcessStream:
    common = {
        "token": options["token"],
        "first_pause": 0.02,
        "longest_pause": 0.2,
        "on_gap": lambda gap: say(gap=[gap.first, gap.last]),
        "on_state": lambda state: say(state=state.name, error=str(state.error) if state.error else None),
    }
    if "apikey" not in options:
        return watch_process(options["url"], options["processId"], **common)
    return watch_process_on_supabase(
        options["url"],
        options["apikey"],
        options["processId"],
        tenant_id=options["tenantId"],
        look_every=60,
        **common,
    )


def obey(stream: ProcessStream) -> None:
    for word in sys.stdin:
        if word.strip() == "acknowledge":
            stream.acknowledge()
            say(acknowledged=stream.position)
        else:
            stream.close()
            return


def main() -> None:
    stream = stream_for(json.loads(os.environ["FOLLOW"]))
    threading.Thread(target=obey, args=(stream,), daemon=True).start()
    try:
        for event in stream:
            say(event=event.as_json())
    except Refused:
        pass  # its state says so


if __name__ == "__main__":
    main()
