"""PgBouncer in transaction mode, in front of a Postgres: the system's own, or Debian's package taken apart.

The package needs no installation: it is fetched and unpacked into the checkout's cache, with those of its
libraries that the system lacks, and started as an ordinary user, for PgBouncer refuses to be root.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2

from sandbox.servers import debian
from sandbox.servers.debian import NotFetched
from sandbox.servers.identity import needs_search_capability, unprivileged
from sandbox.servers.node import CACHE
from sandbox.servers.ports import HOST
from sandbox.servers.postgres import SUPERUSER, Postgres
from sandbox.servers.process import ManagedProcess, ServerFailed, clean_environment
from sandbox.servers.server import PROBE_TIMEOUT, Server

HINT = "Its configuration is pgbouncer.ini in the folder above."

# Strict on purpose: a start-up option or a session's setting that gets through here gets through anywhere.
CONFIGURATION = """\
[databases]
* = host={host} port={upstream}
[pgbouncer]
listen_addr = {address}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/userlist.txt
admin_users = {user}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
max_db_connections = {pool_size}
server_login_retry = 0.2
server_reset_query_always = 0
server_round_robin = 1
query_wait_timeout = {query_wait}
log_connections = 0
log_disconnections = 0
"""


class NoPgBouncer(ServerFailed):
    """PgBouncer is not here and could not be fetched; says why."""


@dataclass(frozen=True)
class Installed:
    executable: Path
    libraries: Path | None
    """Where the libraries are that came with it."""
    version: str

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.libraries is None else {"LD_LIBRARY_PATH": str(self.libraries)}


class PgBouncer(Server):
    """`pool_size` is the number of connections to Postgres that all clients share."""

    kind = "pgbouncer"

    def __init__(
        self,
        postgres: Postgres,
        *,
        pool_size: int = 2,
        query_wait: int = 120,
        folder: Path | None = None,
        port: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(folder=folder, port=port, name=name)
        self._postgres = postgres
        self._pool_size = pool_size
        self._query_wait = query_wait

    def url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{quote(self._postgres.password, safe='')}@{self.address}/{quote(database)}"

    def command(self, words: str) -> None:
        """A command of the console: PAUSE, RESUME, KILL, RECONNECT."""
        connection = psycopg2.connect(self.url("pgbouncer"), connect_timeout=PROBE_TIMEOUT)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(words)
        finally:
            connection.close()

    def _build(self, port: int) -> ManagedProcess:
        installed = find_pgbouncer()
        identity = unprivileged()
        files = self._write_configuration(port)
        if identity is not None:
            self.folder.chmod(0o711)
            for path in files:
                identity.own(path)
        return ManagedProcess(
            name=self.name,
            command=[installed.executable, files[0]],
            log_path=self.log_path,
            hint=HINT,
            environment=clean_environment(**installed.environment),
            identity=identity,
            search=identity is not None and needs_search_capability(identity, installed.executable, *files),
        )

    def _write_configuration(self, port: int) -> list[Path]:
        """The configuration, first, and the list of users; the password must not show in the process list."""
        configuration, users = self.folder / "pgbouncer.ini", self.folder / "userlist.txt"
        text = CONFIGURATION.format(
            host=HOST,
            upstream=self._postgres.port,
            address=HOST,
            port=port,
            folder=self.folder,
            user=SUPERUSER,
            pool_size=self._pool_size,
            query_wait=self._query_wait,
        )
        for path, content in ((configuration, text), (users, f'"{SUPERUSER}" "{self._postgres.password}"\n')):
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            path.write_text(content)
        return [configuration, users]

    def _ready(self, port: int) -> bool:
        access: dict[str, Any] = {"host": HOST, "port": port, "user": SUPERUSER, "password": self._postgres.password}
        try:
            psycopg2.connect(dbname="pgbouncer", connect_timeout=PROBE_TIMEOUT, **access).close()
        except psycopg2.OperationalError:
            return False
        return True


@functools.cache
def find_pgbouncer(cache: Path = CACHE) -> Installed:
    """The system's, or the one in the cache, which is filled at the first call. Raises NoPgBouncer."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
    try:
        if found is not None:
            return _checked(Path(found), None)
        folder = debian.fetched("pgbouncer", cache)
        libraries = next(iter(folder.glob("usr/lib/*/")), None)
        return _checked(folder / "usr" / "sbin" / "pgbouncer", libraries)
    except NotFetched as error:
        raise NoPgBouncer(
            f"PgBouncer is not on this system or does not run, and could not be fetched from Debian's archive: {error}"
        ) from None


def _checked(executable: Path, libraries: Path | None) -> Installed:
    installed = Installed(executable, libraries, "")
    answer = debian.run([executable, "--version"], environment=installed.environment)
    version = re.search(r"PgBouncer (\S+)", answer)
    if version is None:
        raise NoPgBouncer(f"{executable} does not say its version but {answer!r}")
    return Installed(executable, libraries, version[1])


if __name__ == "__main__":  # ahead of time, so that no test pays for it: python -m sandbox.servers.pgbouncer
    print(find_pgbouncer())
