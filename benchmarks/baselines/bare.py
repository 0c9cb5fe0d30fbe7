"""A bare aiohttp loop: the same calls, nothing read from a database and nothing written. The ceiling.

    python -m benchmarks.baselines.bare BASE SECONDS CONCURRENCY

prints the calls per second, and the CPU seconds of 1,000 of them.
"""

import asyncio
import sys
import time

import aiohttp
import orjson
from yarl import URL

QUERY = "maxResults=2500&showDeleted=true&singleEvents=false&syncToken=CPDAgeyl1ZEDEPDAgeyl1ZEDGAUg5LD1rgMo5LD1rgM%3D"
HEADERS = {"Accept-Encoding": "gzip", "User-Agent": "bare (gzip)", "Authorization": "Bearer ya29.bench"}


async def loop(base: str, seconds: float, concurrency: int) -> tuple[float, float]:
    """(calls per second, CPU seconds per 1,000 calls)."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    calls = 0

    async def client(number: int) -> None:
        nonlocal calls
        while time.monotonic() < ends:
            url = URL(f"{base}calendars/office%40{number}-{calls}.example.test/events?{QUERY}", encoded=True)
            async with session.get(url, headers=HEADERS) as answer:
                await answer.read()
            calls += 1

    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        began, cpu = time.monotonic(), time.process_time()
        ends = began + seconds
        await asyncio.gather(*(client(number) for number in range(concurrency)))
        return calls / (time.monotonic() - began), (time.process_time() - cpu) / calls * 1000


def main() -> None:
    base, seconds, concurrency = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    print(orjson.dumps(asyncio.run(loop(base, seconds, concurrency))).decode())


if __name__ == "__main__":
    main()
