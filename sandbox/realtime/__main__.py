"""`python -m sandbox.realtime --port 54321`; the project behind it is named by the environment."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from aiohttp import web

from sandbox.realtime.policies import Keys
from sandbox.realtime.server import Gateway, Project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    project = json.loads(Path(os.environ["REALTIME_PROJECT"]).read_text())
    keys = Keys(project["publishable_key"], project["secret_key"], project["jwt_secret"])
    gateway = Gateway(Project(project["dsn"], project["upstream"], keys))
    web.run_app(gateway.app(), host=chosen.host, port=chosen.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
