"""Debian's packages without root: fetched by apt-get and taken apart into the checkout's cache, nothing installed."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sandbox.servers.node import CACHE, only_one, system

FETCH_TIMEOUT = 300.0  # seconds, for each package; a browser has 65 MB
_APT = ("-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15")


class NotFetched(Exception):
    """A package could not be had, or a program of it not be run; says what failed, and how."""


def fetched(package: str, cache: Path = CACHE) -> Path:
    """A folder with the package's files and those of its libraries that the system lacks; filled at the first call.

    Raises NotFetched.
    """
    folder = cache / f"{package}-{system()}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache / f"{folder.name}.lock"):
            if not folder.exists():
                _fetch_into(folder, package)
    return folder


def closure(package: str) -> list[str]:
    """The package and whatever it needs that is not installed, by name. Raises NotFetched."""
    told = run(["apt-get", "-s", *_APT, "install", "--no-install-recommends", package])
    return re.findall(r"^Inst (\S+)", told, re.MULTILINE)


def unpacked(name: str, packages: Callable[[], Sequence[str]], cache: Path = CACHE) -> Path:
    """A folder with the files of all these packages, filled at the first call. Raises NotFetched."""
    folder = cache / f"{name}-{system()}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache / f"{folder.name}.lock"):
            if not folder.exists():
                _unpack_all(folder, packages())
    return folder


def run(command: list[str | Path], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program prints. Raises NotFetched where it cannot be run or fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            capture_output=True,
            text=True,
            check=True,
            timeout=FETCH_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines() or [str(error)]
        raise NotFetched(f"`{command[0]}` failed: {said[-1]}") from None
    return done.stdout.strip()


@contextmanager
def _drafted(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that becomes it when the block ends well: it exists only when it is complete."""
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.draft-", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _fetch_into(folder: Path, package: str) -> None:
    with _drafted(folder) as draft:
        depends = _unpack(package, draft)
        names = [re.split(r"[ (|]", one.strip())[0] for one in depends.split(",")]
        for name in names:
            if name.startswith("lib") and not _installed(name):
                _unpack(name, draft)


def _unpack_all(folder: Path, packages: Sequence[str]) -> None:
    with _drafted(folder) as draft:
        for name in packages:
            _unpack(name, draft)


def _unpack(name: str, folder: Path) -> str:
    """Fetch a package and take it apart into the folder; answers what it depends on."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as here:
        run(["apt-get", *_APT, "download", name], cwd=Path(here))
        (package,) = Path(here).glob("*.deb")
        run(["dpkg-deb", "-x", package, folder])
        return run(["dpkg-deb", "-f", package, "Depends"])


def _installed(name: str) -> bool:
    try:
        return run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name]) == "installed"
    except NotFetched:
        return False
