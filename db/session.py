"""Connections and units of work. `commit()` stands here and nowhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
import psycopg2
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import Engine, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

T = TypeVar("T")

CONNECT_TIMEOUT = 5  # seconds
STATEMENT_TIMEOUT = 60  # seconds; the longest statement is the merge of a very large calendar
LOCK_TIMEOUT = 10  # seconds
POOL_TIMEOUT = 10.0  # seconds to wait for a pooled connection before saying so
READ_ONLY = "25006"  # what a primary that was demoted answers to a write (SQLSTATE)
CANCELLED = "57014"  # by statement_timeout, or by an operator


class DatabaseUnreachable(Exception):
    """Postgres did not answer within the attempts allowed. The message names host and port, never the password."""


class PoolExhausted(SQLAlchemyError):
    """All connections of this process stayed busy for as long as one was waited for."""


class PoolerInBetween(Exception):
    """Work that needs a session of its own was about to go through a pooler, which would keep its locks for ever."""


def driver_url(url: str) -> str:
    """The address as SQLAlchemy wants it: psycopg2's, whatever of the two usual schemes was given."""
    return make_url(url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


class Database:
    """A pool of connections to one Postgres.

    Three ways in, and no fourth: `transaction()` commits at the end of its block or rolls back,
    `statement()` runs single statements that commit themselves (one round trip each), `reading()`
    never writes. No start-up options and no prepared statements are used, so all three work through
    PgBouncer in transaction mode; time limits are set inside each transaction.
    """

    def __init__(self, url: str, *, pool_size: int, name: str, pool_timeout: float = POOL_TIMEOUT) -> None:
        self._engine: Engine = create_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_pre_ping=True,
            pool_use_lifo=True,
            hide_parameters=True,
            # jsonb writes 1e300 out as 301 digits; json.loads makes an integer of it that nothing can write again
            json_deserializer=orjson.loads,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": name,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 15_000,
            },
        )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._readers = self._engine.execution_options(reads_only=True)
        self._busy = (
            f"All {pool_size} connections of this process to Postgres were busy for {pool_timeout:g} s: look for what "
            "they wait for in pg_stat_activity, or raise WORKER_DB_POOL_SIZE."
        )
        event.listen(self._engine, "begin", _set_limits)
        event.listen(self._engine, "handle_error", _leave_demoted_primary)
        event.listen(self._engine, "handle_error", _hide_values)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One unit of work: committed when the block ends, rolled back when it raises."""
        with self._connection(self._engine) as connection, connection.begin() as unit_of_work:
            yield connection
            unit_of_work.commit()

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """Single statements, each committing itself. Only for statements that are whole by themselves."""
        with self._connection(self._autocommit) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that refuses to write."""
        with self._connection(self._readers) as connection:
            connection.execute(text("set transaction read only"))
            yield connection

    @contextmanager
    def _connection(self, engine: Engine) -> Iterator[Connection]:
        try:
            connection = engine.connect()
        except PoolTimeout:
            raise PoolExhausted(self._busy) from None
        with connection:
            yield connection

    def is_pooled(self) -> bool:
        """Whether a pooler such as PgBouncer stands between us and Postgres."""
        with self.statement() as connection:
            return is_pooled(connection)

    def wait_until_reachable(self, *, attempts: int = 5) -> None:
        """Return once Postgres answers. Raises DatabaseUnreachable after `attempts`, backing off between them."""

        def probe() -> None:
            with self.statement() as connection:
                connection.execute(text("select 1"))

        try:
            Retrying(
                stop=stop_after_attempt(attempts),
                wait=wait_exponential_jitter(multiplier=0.2, max=3),
                retry=retry_if_exception(lambda error: isinstance(error, OperationalError)),
                reraise=True,
            )(probe)
        except OperationalError as error:
            where = self._engine.url
            raise DatabaseUnreachable(
                f"Postgres at {where.host}:{where.port or 5432}/{where.database} did not answer after {attempts} "
                f"attempts ({_first_line(error)}). Check DATABASE_URL, and that the server runs and lets us in."
            ) from None

    def close(self) -> None:
        self._engine.dispose()


def is_pooled(connection: Connection) -> bool:
    """Whether what answers here is a pooler: it tells its clients process numbers that no backend of Postgres has."""
    told = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]
    return bool(told != connection.execute(text("select pg_backend_pid()")).scalar_one())


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__


def _set_limits(connection: Connection) -> None:
    # psycopg2 sends BEGIN with the first statement, so this costs one round trip a transaction and
    # spares PgBouncer a start-up option that it would refuse.
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    with driver_cursor(connection) as cursor:
        cursor.execute(
            f"set local statement_timeout = '{STATEMENT_TIMEOUT}s'; set local lock_timeout = '{LOCK_TIMEOUT}s'; "
            "set local idle_in_transaction_session_timeout = '60s'"
        )


@contextmanager
def driver_cursor(connection: Connection) -> Iterator[Any]:
    """The driver's own cursor, for COPY. Its errors come out as SQLAlchemy's and stripped, like all others."""
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except psycopg2.Error as error:
        if error.pgcode == READ_ONLY:
            connection.invalidate(error)
        _strip(error)
        raise DBAPIError.instance(None, None, error, psycopg2.Error, hide_parameters=True) from error
    finally:
        cursor.close()


def _strip(error: BaseException) -> str | None:
    """Leave of an error what holds no value: Postgres quotes whole rows, and rows are tenants' appointments."""
    code = getattr(error, "pgcode", None)
    if code is None:  # never reached the server, or lost it: the text names host and port
        return None
    about = getattr(error, "diag", None)
    names = (getattr(about, name, None) for name in ("table_name", "column_name", "constraint_name"))
    left = " ".join([f"SQLSTATE {code}", "/".join(name for name in names if name)]).strip()
    error.args = (left,)
    return left


def _leave_demoted_primary(context: ExceptionContext) -> None:
    """Give up every connection to a server that was made a standby, so that the next ones find its successor."""
    ours = context.connection is not None and context.connection.get_execution_options().get("reads_only")
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY and not ours:
        context.is_disconnect = True


def _hide_values(context: ExceptionContext) -> None:
    original, wrapped = context.original_exception, context.sqlalchemy_exception
    left = _strip(original)
    if left is not None and wrapped is not None:
        wrapped.args = (f"{type(original).__name__}: {left}",)
        if isinstance(wrapped, StatementError) and wrapped.statement:
            wrapped.statement = " ".join(wrapped.statement.split())[:120]


def violated(error: DBAPIError) -> str | None:
    """The name of the constraint that a statement violated."""
    name: str | None = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return name


def is_connection_loss(error: BaseException) -> bool:
    """Whether a connection was lost, refused or not to be had, or led to a standby, so that trying again makes sense.

    A statement that ran into its time limit would only do so again.
    """
    if isinstance(error, PoolExhausted):
        return True
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "pgcode", None)
    lost = error.connection_invalidated or code == READ_ONLY or isinstance(error, OperationalError)
    return lost and code != CANCELLED


def in_transaction(database: Database, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction of its own: the shape in which code hands work to a thread."""
    with database.transaction() as connection:
        return work(connection)
