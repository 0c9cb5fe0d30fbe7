"""When a worker that receives nothing is taken for one that no longer consumes, and when it is left alone."""

import pytest

from tenantsync.dispatching.vigil import PATIENCE, Sight, Vigil

LOOK = 2.0  # seconds
STUCK = Sight(waiting=3, free=1, received=7)
AWAY = Sight(waiting=None, free=1, received=7)
LOOKS = int(PATIENCE / LOOK) + 2


def ends_after(sights: list[Sight]) -> float | None:
    """Seconds from the first of these looks to the one that ends the vigil; None if none does."""
    vigil = Vigil()
    for number, sight in enumerate(sights):
        if vigil.is_over(sight, 1000.0 + number * LOOK):
            return number * LOOK
    return None


def test_a_worker_that_receives_nothing_beside_waiting_messages_is_replaced_when_patience_ends() -> None:
    ended = ends_after([STUCK] * 20)

    assert ended is not None
    assert PATIENCE <= ended <= PATIENCE + 2 * LOOK


@pytest.mark.parametrize(
    "sights",
    [
        [Sight(waiting=0, free=1, received=7)] * 50,
        [Sight(waiting=9, free=0, received=7)] * 50,
        [Sight(waiting=9, free=-1, received=7)] * 50,
        [Sight(waiting=9, free=1, received=7 + number) for number in range(50)],
        [AWAY] * 50,
        [STUCK, STUCK, STUCK, AWAY] * 15,
        [STUCK, STUCK, Sight(waiting=0, free=1, received=7)] * 15,
        [STUCK, STUCK, Sight(waiting=3, free=0, received=7)] * 15,
        [Sight(waiting=3, free=1, received=7 + number // 4) for number in range(60)],
    ],
    ids=[
        "nothing waits",
        "all slots are full",
        "more runs than there are slots",
        "it receives",
        "the broker is away",
        "the broker comes and goes",
        "the queue empties now and then",
        "its slots fill now and then",
        "it receives now and then",
    ],
)
def test_a_worker_is_left_alone_while(sights: list[Sight]) -> None:
    assert ends_after(sights) is None


def test_a_worker_gets_all_its_patience_after_the_broker_is_back() -> None:
    ended = ends_after([STUCK] * (LOOKS - 3) + [AWAY] * 30 + [STUCK] * 20)

    assert ended is not None
    assert ended >= (LOOKS - 3 + 30) * LOOK + PATIENCE
