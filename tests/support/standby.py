"""A standby that follows a Postgres and is ready to take its place."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sandbox.servers.identity import needs_search_capability, unprivileged
from sandbox.servers.ports import HOST
from sandbox.servers.postgres import SUPERUSER, Postgres, binaries
from sandbox.servers.process import clean_environment, launch_command
from tests.support.waiting import wait_until

STREAMING = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'sync'"


def follow(primary: Postgres, folder: Path, settings: Mapping[str, str]) -> Postgres:
    """A copy of `primary` that streams from it, not yet started, with the same settings."""
    folder.mkdir(parents=True)
    folder.chmod(0o711)
    (folder / "password").write_text(primary.password)
    standby = Postgres(folder=folder, settings=settings, name="standby")
    identity = unprivileged()
    standby.data.mkdir(mode=0o700)
    if identity is not None:
        identity.own(standby.data)
    command = [binaries() / "pg_basebackup", "-D", standby.data, "-h", HOST, "-p", str(primary.port), "-U", SUPERUSER]
    search = identity is not None and needs_search_capability(identity, binaries() / "postgres", standby.data)
    done = subprocess.run(
        launch_command([*command, "-R", "-X", "stream", "-c", "fast", "--no-sync"], identity=identity, search=search),
        env=clean_environment(PGPASSWORD=primary.password),
        capture_output=True,
        text=True,
        cwd="/",
        timeout=120,
    )
    if done.returncode != 0:
        shutil.rmtree(folder)
        raise AssertionError(f"pg_basebackup failed: {done.stderr}")
    return standby


def keep_in_step(primary: Postgres) -> None:
    """From now on a commit is confirmed when the standby has it too, so that a failover loses none."""
    primary.execute(SUPERUSER, "alter system set synchronous_standby_names = '*'")
    primary.execute(SUPERUSER, "select pg_reload_conf()")
    wait_until(lambda: _one(primary, STREAMING) == 1, about="the standby's keeping in step", longest=30)


def promote(standby: Postgres) -> None:
    """Make the standby the primary."""
    standby.execute(SUPERUSER, "select pg_promote(true)")
    alone(standby)


def alone(server: Postgres) -> None:
    """From now on no commit waits for a standby."""
    server.execute(SUPERUSER, "alter system reset synchronous_standby_names")
    server.execute(SUPERUSER, "select pg_reload_conf()")


def _one(server: Postgres, query: str) -> int:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])
