"""The listening socket's options, which every connection takes over."""

import socket

from tenantsync.web import serving


def test_no_answer_waits_for_its_readers_acknowledgement() -> None:
    with serving._listening("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
