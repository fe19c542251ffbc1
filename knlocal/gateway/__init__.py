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

from knlocal.gateway.client import HttpClient, HttpClientError, Response
from knlocal.gateway.forward import Endpoint, Forwarded, NotSent, Timeouts, forward
from knlocal.gateway.http import BodyTooLarge, ClientGone, Exposure, Handler, Request
from knlocal.gateway.pool import Pool
from knlocal.gateway.routes import Conflict, Route, RouteTable
from knlocal.gateway.server import Gateway, RequestRecord

__all__ = [
    "BodyTooLarge",
    "ClientGone",
    "Conflict",
    "Endpoint",
    "Exposure",
    "Forwarded",
    "Gateway",
    "Handler",
    "HttpClient",
    "HttpClientError",
    "NotSent",
    "Pool",
    "Request",
    "RequestRecord",
    "Response",
    "Route",
    "RouteTable",
    "Timeouts",
    "forward",
]
