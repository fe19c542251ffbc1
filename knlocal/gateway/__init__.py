"""The HTTP front door: host to handler, and the client that talks to what is behind it.

A feature claims hosts and answers requests, whichever protocol brought them (HTTP/1.0, HTTP/1.1,
HTTP/2 in clear text or over TLS, or this process itself):

    routes = RouteTable()
    routes.put("serving/default/hello", {"hello.default.localhost": Route(handler)})

    async def handler(request: Request) -> None:
        await request.respond(200, [("Content-Type", "text/plain")], "hello")

    gateway = Gateway(routes, clock)
    await gateway.listen("127.0.0.1", 8080, "external")          # Address(host, port)
    await gateway.close(grace=10)

Passing a request on; `NotSent` means that nothing was answered or read, so another pod may get it:

    pool = Pool(clock)                                           # one per daemon
    result = await forward(request, Endpoint("172.17.0.3", 8080, "http1"), pool=pool, clock=clock,
                           timeouts=Timeouts(total=300), set_headers={"K-A": "b"})
    result.status, result.bytes_out, result.upstream_error, result.timed_out
    pool.close_endpoint("172.17.0.3")                            # when the pod is gone

Delivering events. Names in the route table are answered in process, without a socket:

    client = HttpClient(routes, clock, pool)
    response = await client.request("POST", "http://hello.default.svc.cluster.local", headers, body)

A client that leaves cancels its handler (CancelledError); what still uses the request then gets
`ClientGone`. `tls.Certificates` makes the context of a TLS listener, `dns.DnsServer` answers for
cluster-local names where port 53 can be had.
"""

from knlocal.gateway.client import (
    ConnectError,
    HttpClient,
    HttpClientError,
    InvalidUrl,
    ProtocolError,
    RequestTimeout,
    Response,
    ResponseTooLarge,
)
from knlocal.gateway.context import Limits
from knlocal.gateway.forward import Endpoint, Forwarded, NotSent, Timeouts, forward
from knlocal.gateway.http import BodyTooLarge, ClientGone, Exposure, Handler, Request
from knlocal.gateway.pool import Pool
from knlocal.gateway.routes import Conflict, Route, RouteTable
from knlocal.gateway.server import Address, Gateway, RequestRecord

__all__ = [
    "Address",
    "BodyTooLarge",
    "ClientGone",
    "Conflict",
    "ConnectError",
    "Endpoint",
    "Exposure",
    "Forwarded",
    "Gateway",
    "Handler",
    "HttpClient",
    "HttpClientError",
    "InvalidUrl",
    "Limits",
    "NotSent",
    "Pool",
    "ProtocolError",
    "Request",
    "RequestRecord",
    "RequestTimeout",
    "Response",
    "ResponseTooLarge",
    "Route",
    "RouteTable",
    "Timeouts",
    "forward",
]
