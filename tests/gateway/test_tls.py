from __future__ import annotations

import asyncio
import ssl

import aiohttp
import pytest
from cryptography import x509

from knlocal.clock import SystemClock
from knlocal.gateway.client import ConnectError, HttpClient
from knlocal.gateway.http import Request
from knlocal.gateway.tls import Certificates, InvalidCertificate, KeyPair, self_signed
from tests.gateway.conftest import DEADLINE, Door, Wire
from tests.gateway.h2client import H2Client

CLOCK = SystemClock()


async def show(request: Request) -> None:
    await request.respond(200, (), f"{request.scheme} {request.protocol} {request.host}")


@pytest.fixture
def certificates() -> Certificates:
    return Certificates(CLOCK)


@pytest.fixture
async def secure(door: Door, certificates: Certificates) -> Door:
    door.serve(show, "app.test", "shop.example", "www.shop.example")
    door.host, door.port = await door.gateway.listen(
        "127.0.0.1", 0, "external", ssl=certificates.context
    )
    return door


def trusting(*pairs: KeyPair) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for pair in pairs:
        context.load_verify_locations(cadata=pair.certificate.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def presented(door: Door, name: str | None) -> str:
    """The common name of the certificate that a client sees when it asks for `name`."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.wait_for(
        asyncio.open_connection(door.host, door.port, ssl=context, server_hostname=name or ""),
        DEADLINE,
    )
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    names = x509.load_der_x509_certificate(der).subject.rfc4514_string()
    return names.removeprefix("CN=")


async def test_each_host_presents_its_own_certificate(
    secure: Door, certificates: Certificates
) -> None:
    certificates.put("a", {"shop.example": self_signed("shop.example", CLOCK)})
    certificates.put("b", {"*.shop.example": self_signed("wild.example", CLOCK)})
    assert await presented(secure, "shop.example") == "shop.example"
    assert await presented(secure, "www.shop.example") == "wild.example"
    assert await presented(secure, "other.example") == "knlocal.localhost"
    assert await presented(secure, None) == "knlocal.localhost"
    assert certificates.has("WWW.shop.example")
    assert not certificates.has("a.b.shop.example")


async def test_a_replaced_certificate_is_presented_at_once(
    secure: Door, certificates: Certificates
) -> None:
    certificates.put("a", {"shop.example": self_signed("one.example", CLOCK)})
    assert await presented(secure, "shop.example") == "one.example"
    certificates.put("a", {"shop.example": self_signed("two.example", CLOCK)})
    assert await presented(secure, "shop.example") == "two.example"
    certificates.remove("a")
    assert await presented(secure, "shop.example") == "knlocal.localhost"


async def test_requests_over_tls_reach_the_same_handlers(
    secure: Door, certificates: Certificates
) -> None:
    pair = self_signed("shop.example", CLOCK)
    certificates.put("a", {"shop.example": pair})
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(
                f"https://{secure.host}:{secure.port}/",
                headers={"Host": "shop.example"},
                ssl=trusting(pair),
                server_hostname="shop.example",
            ) as response:
                assert await response.text() == "https HTTP/1.1 shop.example"


async def test_http2_is_agreed_on_by_alpn(secure: Door, certificates: Certificates) -> None:
    pair = self_signed("app.test", CLOCK)
    certificates.put("a", {"app.test": pair})
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(
            secure.host, secure.port, ssl=trusting(pair), server_hostname="app.test"
        ),
        DEADLINE,
    )
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    client = await H2Client(Wire(reader, writer)).begin()
    assert (await client.get()).body == b"https HTTP/2 app.test"
    writer.close()


async def test_plain_http_on_the_tls_port_harms_nobody(secure: Door) -> None:
    wire = await secure.connect()
    await wire.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
    try:
        assert b"200" not in await wire.rest()
    except ConnectionError:
        pass
    assert await presented(secure, "app.test") == "knlocal.localhost"


@pytest.mark.parametrize("case", ["garbage", "wrong key", "no key", "empty"])
def test_an_unusable_certificate_is_refused_with_a_reason(
    certificates: Certificates, case: str
) -> None:
    good = self_signed("shop.example", CLOCK)
    pair = {
        "garbage": KeyPair(b"nonsense", b"nonsense"),
        "wrong key": KeyPair(good.certificate, self_signed("other.example", CLOCK).key),
        "no key": KeyPair(good.certificate, b""),
        "empty": KeyPair(b"", b""),
    }[case]
    certificates.put("a", {"shop.example": good})
    with pytest.raises(InvalidCertificate, match=r"shop\.example"):
        certificates.put("a", {"shop.example": pair})
    assert certificates.has("shop.example")


async def test_the_client_for_events_does_not_trust_just_anyone(secure: Door) -> None:
    client = HttpClient(None, CLOCK)
    with pytest.raises(ConnectError, match="certificate"):
        await client.request("GET", f"https://{secure.host}:{secure.port}/", timeout=DEADLINE)
    await client.close()
