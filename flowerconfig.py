"""Flower's configuration; `celery -A tasks flower` finds it in the checkout. Refuses to start without a password."""

import sys

from config.settings import get_settings
from tasks.flower_guard import close_open_pages

_login = get_settings().flower_basic_auth
if _login is None:
    sys.stderr.write("FLOWER_BASIC_AUTH is missing: Flower can stop workers, so it needs a login like user:password\n")
    raise SystemExit(2)

basic_auth = [_login.get_secret_value()]
max_tasks = 20_000  # 9 MB of memory for 12,000 tasks were measured; the history is in worker.tasks
purge_offline_workers = 300  # seconds
tasks_columns = "name,state,kwargs,received,runtime,worker,uuid"

close_open_pages()
