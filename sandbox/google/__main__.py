"""`python -m sandbox.google --port 0 --ready-file PATH [--seed N]`: one stand-in as its own process."""

import argparse
import asyncio
import json
import secrets
import signal
import sys
from pathlib import Path

from sandbox.google.server import start
from sandbox.google.store import Store


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.google", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the control API answers loopback clients only")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ready-file", type=Path, help='gets {"port": N} once the server listens')
    parser.add_argument("--seed", type=int, help="makes ids and tokens repeatable; random otherwise")
    asyncio.run(_serve(parser.parse_args()))
    return 0


async def _serve(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    # Without a seed, tokens of an earlier process must not be taken for tokens of this one.
    store = Store(seed=secrets.randbits(63) if args.seed is None else args.seed)
    runner, port = await start(store, host=args.host, port=args.port)
    try:
        if args.ready_file is not None:
            _announce(args.ready_file, port)
        print(f"Google Calendar stand-in on http://{args.host}:{port}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def _announce(path: Path, port: int) -> None:
    """Renamed into place, so that a reader never sees half a file."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps({"port": port}))
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
