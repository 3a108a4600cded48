"""Each published denial of service of HTTP/2 since 2019, against one server: by strangers and by callers.

The attacker is stopped, or costs the server no more than so much memory; a good client is served meanwhile.
"""

from __future__ import annotations

import pytest

from tests.attacks.conftest import AUTH, TOKEN, a_good_client_is_served, raw
from tests.attacks.http2_cves import PUBLISHED, Published
from tests.attacks.raw_http2 import ACK, SETTINGS, RawPeer, frame, settings
from tests.conftest import Serve, ServerProcess

pytestmark = pytest.mark.own_http2

_GROWTH = 64e6
_CREDENTIALS = (("authorization", f"Bearer {TOKEN}"),)
_CASES = [
    pytest.param(
        attack,
        inside,
        id=f"CVE-{attack.number} {attack.name}" + " by a caller" * inside,
    )
    for attack in PUBLISHED
    for inside in ((False, True) if attack.inside else (False,))
]


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module(f"{AUTH}[log]\nlevel = warning\n")


@pytest.mark.parametrize(("attack", "inside"), _CASES)
def test_published(server: ServerProcess, attack: Published, inside: bool) -> None:
    with a_good_client_is_served(server, _GROWTH), raw(server) as peer:
        ended = carried_out(peer, attack, inside)
        if attack.ends and not ended:
            peer.wait_closed()
    assert "Traceback" not in server.log


def carried_out(peer: RawPeer, attack: Published, inside: bool) -> bool:
    """Carry an attack out; whether the server has ended the connection."""
    try:
        peer.greet(settings(*attack.settings)[9:])
        peer.send(frame(SETTINGS, ACK, 0))
        for piece in attack.pieces(_CREDENTIALS if inside else ()):
            peer.send(piece)
            if not attack.alone:
                peer.discard()
    except TimeoutError:
        return False  # nothing more is taken
    except OSError:
        return True
    return False
