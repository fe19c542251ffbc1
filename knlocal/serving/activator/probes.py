"""Probes on the data path: answered here, never counted as traffic (behaviours C16, C26).

Sources: knative.dev/networking/pkg/http/probe, serving pkg/activator/handler/probe_handler.go and
healthz_handler.go.
"""

from __future__ import annotations

from typing import Final

from multidict import CIMultiDict, istr

from knlocal.gateway import Request
from knlocal.serving.activator.throttler import Throttler

NETWORK_PROBE: Final = istr("K-Network-Probe")
NETWORK_HASH: Final = istr("K-Network-Hash")
KUBELET_PROBE: Final = istr("K-Kubelet-Probe")
USER_AGENT: Final = istr("User-Agent")


def is_probe(headers: CIMultiDict[str]) -> bool:
    """Whether a request only asks if somebody is there."""
    return (
        NETWORK_PROBE in headers
        or KUBELET_PROBE in headers
        or headers.get(USER_AGENT, "").startswith("kube-probe/")
    )


async def answer(request: Request, throttler: Throttler) -> None:
    """Answer a probe as the component that it means would."""
    kind = request.headers.get(NETWORK_PROBE)
    match kind:
        case None:
            await request.respond(200)
        case "activator":
            await request.respond(200, (), "activator")
        case "queue":
            if throttler.pods:
                await request.respond(200, (), "queue")
            else:
                await request.respond(503, (), "no pod is ready\n")
        case "probe":
            value = request.headers.get(NETWORK_HASH)
            if value:
                await request.respond(200, [(NETWORK_HASH, value)])
            else:
                text = f"a probe request must contain a non-empty {NETWORK_HASH!r} header\n"
                await request.respond(400, (), text)
        case _:
            await request.respond(400, (), f'unexpected probe header value: "{kind}"\n')
