"""The HTTP front door: host to handler, and the client that talks to what is behind it.

routes = RouteTable()
routes.put("serving/default/hello", {"hello.default.localhost": Route(handler)})
gateway = Gateway(routes, clock)
await gateway.listen("127.0.0.1", 8080, "external")

async def handler(request: Request) -> None:          # any protocol: HTTP/1.1, h2c, in process
    await forward(request, Endpoint("172.17.0.3", 8080), pool=pool, clock=clock,
                  timeouts=Timeouts(total=300))       # raises NotSent: try another pod

client = HttpClient(routes, clock)
response = await client.request("POST", "http://hello.default.svc.cluster.local", headers, body)
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
