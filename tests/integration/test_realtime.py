"""The Realtime stand-in, by the official Python client: who may join, what is heard, when it ends."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import httpx
import pytest
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates

from sandbox.realtime.frames import DELIVERED
from sandbox.servers.realtime import SupabaseGateway
from tests.support.mirror import MirrorSide

pytest_plugins = ["tests.support.realtime_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

A, B = "0a000000-0000-7000-8000-00000000000a", "0b000000-0000-7000-8000-00000000000b"
SEND = "select realtime.send(%s, %s, %s, %s)"


async def soon(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 — what is waited for happens in callbacks of the client
            await asyncio.sleep(0.01)


class Ear:
    """A joined channel and what it heard."""

    def __init__(self, channel: AsyncRealtimeChannel) -> None:
        self.channel = channel
        self.states: list[tuple[str, str]] = []
        self.heard: list[dict[str, Any]] = []
        channel.on_broadcast("*", lambda message: self.heard.append(dict(message)))

    async def join(self) -> str:
        """The first state that the channel comes to."""
        await self.channel.subscribe(lambda state, error: self.states.append((state.value, str(error))))
        await soon(lambda: bool(self.states))
        return self.states[0][0]


@pytest.fixture
def listening(supabase_gateway: SupabaseGateway) -> Callable[..., Any]:
    """A client that is closed at the end of the block; yields a maker of ears."""

    @asynccontextmanager
    async def opened(token: str | None = None, *, key: str | None = None) -> AsyncIterator[Callable[..., Ear]]:
        lite = supabase_gateway.lite
        url = supabase_gateway.url + "/realtime/v1"
        client = AsyncRealtimeClient(url, key or lite.publishable_key, auto_reconnect=False)
        if token:
            await client.set_auth(token)

        def ear(topic: str, *, private: bool = True, **broadcast: bool) -> Ear:
            config: Any = {"config": {"private": private, "broadcast": {"ack": False, "self": False, **broadcast}}}
            return Ear(client.channel(topic, config))

        try:
            yield ear
        finally:
            await client.close()

    return opened


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


JOINED, REFUSED, ENDED = (
    state.value
    for state in (
        RealtimeSubscribeStates.SUBSCRIBED,
        RealtimeSubscribeStates.CHANNEL_ERROR,
        RealtimeSubscribeStates.CLOSED,
    )
)


def send(mirror: MirrorSide, topic: str, payload: dict[str, Any], *, private: bool = True) -> None:
    mirror.execute(SEND, (json.dumps(payload), "changed", topic, private))


def test_a_member_hears_the_own_tenants_private_topic(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(A)) as ear:
            mine = ear(f"tenant:{A}")
            assert await mine.join() == JOINED

            send(mirror, f"tenant:{B}", {"n": 0})
            send(mirror, f"tenant:{A}", {"n": 1}, private=False)
            for number in (2, 3):
                send(mirror, f"tenant:{A}", {"n": number})

            await soon(lambda: len(mine.heard) == 2)
            assert [(one["event"], one["payload"]) for one in mine.heard] == [
                ("changed", {"n": 2}),
                ("changed", {"n": 3}),
            ]
            assert uuid.UUID(mine.heard[0]["meta"]["id"])

    run(test)


@pytest.mark.parametrize(
    ("tenant", "topic"),
    [(B, f"tenant:{A}"), (None, f"tenant:{A}"), (A, "workers"), (A, "tenant:"), (None, "tenant:None")],
)
def test_a_member_does_not_join_what_the_policies_do_not_show(
    mirror: MirrorSide, listening: Any, tenant: str | None, topic: str
) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(tenant)) as ear:
            other = ear(topic)
            assert await other.join() == REFUSED
            assert "Unauthorized" in other.states[0][1]

    run(test)


def test_who_is_not_signed_in_joins_public_topics_alone(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening() as ear:
            assert await ear(f"tenant:{A}").join() == REFUSED
            public = ear("news", private=False)
            assert await public.join() == JOINED
            send(mirror, "news", {"n": 1}, private=False)
            await soon(lambda: bool(public.heard))

    run(test)


def test_who_joins_a_tenants_topic_publicly_hears_nothing_private(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening() as ear:
            public = ear(f"tenant:{A}", private=False)
            assert await public.join() == JOINED
            send(mirror, f"tenant:{A}", {"secret": 1})
            send(mirror, f"tenant:{A}", {"open": 1}, private=False)
            await soon(lambda: bool(public.heard))
            assert [one["payload"] for one in public.heard] == [{"open": 1}]

    run(test)


def test_the_workers_hear_their_bell_with_the_secret_key(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(key=mirror.lite.secret_key) as ear:
            bell = ear("workers")
            assert await bell.join() == JOINED
            mirror.execute("insert into public.tasks (tenant_id, kind) values (%s, 'k')", (A,))
            await soon(lambda: bool(bell.heard))
            assert bell.heard[0]["event"] == "inserted"

    run(test)


@pytest.mark.parametrize("forged", ["expired", "signature", "none", "words", "role"])
def test_a_token_that_is_not_good_joins_nothing(mirror: MirrorSide, listening: Any, forged: str) -> None:
    good = mirror.lite.user_token(A)
    header, claims, _ = good.split(".")
    token = {
        "expired": mirror.lite.user_token(A, lifetime=timedelta(seconds=-5)),
        "signature": good[:-4] + "AAAA",
        "none": f"eyJhbGciOiJub25lIn0.{claims}.",
        "words": f"{header}.words.words",
        "role": mirror.lite.user_token(A, role="postgres"),
    }[forged]

    async def test() -> None:
        async with listening(token) as ear:
            mine = ear(f"tenant:{A}")
            assert await mine.join() == REFUSED
            assert "InvalidJWTToken" in mine.states[0][1]

    run(test)


def test_a_channel_closes_when_its_token_expires(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(A, lifetime=timedelta(seconds=2))) as ear:
            mine = ear(f"tenant:{A}")
            assert await mine.join() == JOINED
            await soon(lambda: mine.states[-1][0] == ENDED)
            send(mirror, f"tenant:{A}", {"n": 1})
            await asyncio.sleep(0.2)
            assert mine.heard == []

    run(test)


def test_a_fresh_token_keeps_a_channel_open(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(A, lifetime=timedelta(seconds=2))) as ear:
            mine = ear(f"tenant:{A}")
            await mine.join()
            await mine.channel.socket.set_auth(mirror.lite.user_token(A))
            await asyncio.sleep(2.5)
            send(mirror, f"tenant:{A}", {"n": 1})
            await soon(lambda: bool(mine.heard))

    run(test)


def test_a_token_of_another_tenant_closes_the_channel(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(A)) as ear:
            mine = ear(f"tenant:{A}")
            await mine.join()
            await mine.channel.socket.set_auth(mirror.lite.user_token(B))
            await soon(lambda: mine.states[-1][0] == ENDED)

    run(test)


def test_members_do_not_ring_on_a_private_topic(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        token = mirror.lite.user_token(A)
        async with listening(token) as ear, listening(token) as other:
            mine, theirs = ear(f"tenant:{A}"), other(f"tenant:{A}")
            await mine.join()
            await theirs.join()
            await theirs.channel.send_broadcast("changed", {"forged": True})
            send(mirror, f"tenant:{A}", {"honest": True})
            await soon(lambda: bool(mine.heard))
            assert [one["payload"] for one in mine.heard] == [{"honest": True}]

    run(test)


def test_clients_broadcast_to_each_other_on_public_topics(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening() as ear, listening() as other:
            mine, theirs = ear("room", private=False), other("room", private=False)
            await mine.join()
            await theirs.join()
            await theirs.channel.send_broadcast("said", {"n": 1})
            await soon(lambda: bool(mine.heard))
            assert theirs.heard == []

    run(test)


def test_a_server_rings_over_http_with_the_secret_key(
    mirror: MirrorSide, listening: Any, supabase_gateway: SupabaseGateway
) -> None:
    body = {"messages": [{"topic": f"tenant:{A}", "event": "changed", "payload": {"n": 1}, "private": True}]}

    def ring(key: str, token: str | None = None) -> int:
        headers = {"apikey": key} | ({"Authorization": f"Bearer {token}"} if token else {})
        url = f"{supabase_gateway.url}/realtime/v1/api/broadcast"
        return httpx.post(url, json=body, headers=headers, trust_env=False).status_code

    async def test() -> None:
        async with listening(mirror.lite.user_token(A)) as ear:
            mine = ear(f"tenant:{A}")
            await mine.join()
            refused = await asyncio.to_thread(ring, "sb_secret_wrong")
            unheard = await asyncio.to_thread(ring, mirror.lite.publishable_key, mirror.lite.user_token(A))
            heard = await asyncio.to_thread(ring, mirror.lite.secret_key)
            await soon(lambda: bool(mine.heard))
            assert (refused, unheard, heard) == (401, 202, 202)
            assert len(mine.heard) == 1

    run(test)


def test_what_is_not_here_is_refused_and_not_ignored(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(A)) as ear:
            mine = ear(f"tenant:{A}")
            mine.channel.on_postgres_changes("*", lambda _: None, table="tasks")
            assert await mine.join() == REFUSED

    run(test)


def test_version_2_broadcasts_are_binary(mirror: MirrorSide, supabase_gateway: SupabaseGateway) -> None:
    url = f"{supabase_gateway.url}/realtime/v1/websocket?vsn=2.0.0&apikey={mirror.lite.publishable_key}"

    async def test() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as wire:
            config = {"private": True}
            join = {"config": config, "access_token": mirror.lite.user_token(A)}
            await wire.send_json(["1", "1", f"realtime:tenant:{A}", "phx_join", join])
            reply, system = await wire.receive_json(), await wire.receive_json()
            await wire.send_json([None, "2", "phoenix", "heartbeat", {}])
            beat = await wire.receive_json()
            send(mirror, f"tenant:{A}", {"n": 1})
            frame = await wire.receive_bytes(timeout=5)
        assert reply[:4] == ["1", "1", f"realtime:tenant:{A}", "phx_reply"]
        assert reply[4]["status"] == "ok"
        assert (system[3], system[4]["status"]) == ("system", "ok")
        assert beat == [None, "2", "phoenix", "phx_reply", {"status": "ok", "response": {}}]
        assert frame[0] == DELIVERED
        assert frame.endswith(b'{"n": 1}')

    run(test)


@pytest.mark.parametrize("key", [None, "", "sb_publishable_wrong"])
def test_a_socket_without_a_key_of_the_project_does_not_open(
    mirror: MirrorSide, supabase_gateway: SupabaseGateway, key: str | None
) -> None:
    url = f"{supabase_gateway.url}/realtime/v1/websocket" + ("" if key is None else f"?apikey={key}")

    async def test() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url)
            assert refused.value.status == 401

    run(test)


def test_the_listener_survives_the_loss_of_its_connection(mirror: MirrorSide, listening: Any) -> None:
    async def test() -> None:
        async with listening(mirror.lite.user_token(A)) as ear:
            mine = ear(f"tenant:{A}")
            await mine.join()
            mirror.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'realtime stand-in'"
            )
            async with asyncio.timeout(10):
                while not mine.heard:
                    send(mirror, f"tenant:{A}", {"n": 1})
                    await asyncio.sleep(0.1)

    run(test)


def test_everything_else_is_lites(mirror: MirrorSide, supabase_gateway: SupabaseGateway) -> None:
    mirror.execute("insert into public.tasks (tenant_id, kind) values (%s, 'k')", (A,))
    headers = {
        "apikey": mirror.lite.publishable_key,
        "Authorization": f"Bearer {mirror.lite.user_token(A)}",
    }

    with httpx.Client(base_url=supabase_gateway.url, headers=headers, trust_env=False) as client:
        seen = client.get("/rest/v1/tasks", params={"select": "kind,status", "kind": "eq.k"})
        asked = client.post("/rest/v1/tasks", json={"tenant_id": A, "kind": "other"})
        refused = client.post("/rest/v1/tasks", json={"tenant_id": B, "kind": "other"})

    assert seen.json() == [{"kind": "k", "status": "pending"}]
    assert (asked.status_code, refused.status_code) == (201, 403)
