"""A daemon's data plane that can be killed at any moment and comes back at once.

    python -m tests.eventing.mortal PORT DATABASE SINK_URL

Each line read from standard input starts a life; the process forks it, so that coming back takes
milliseconds. "kill" kills the one that runs with SIGKILL, "end" lets it finish. Every life serves
one durable broker on PORT, with one trigger that leads to SINK_URL, and prints "up".
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from knlocal.clock import SystemClock
from knlocal.eventing.delivery import DeliveryPolicy
from knlocal.eventing.dispatcher import Dispatcher
from knlocal.eventing.engines import DurableEngine
from knlocal.eventing.ingress import BrokerIngress
from knlocal.eventing.subscription import Subscription
from knlocal.gateway import Gateway, HttpClient, RouteTable
from knlocal.journal import Door, Journal


async def live(port: int, database: Path, sink: str, stop: asyncio.Event) -> None:
    clock, routes = SystemClock(), RouteTable()
    client = HttpClient(None, clock)  # the sink has the same host as the door
    engine = DurableEngine(database)
    dispatcher = Dispatcher(client, clock, Journal(clock), {"memory": engine})
    await dispatcher.start()
    policy = DeliveryPolicy(50, "linear", 0.01)
    door = Door("Broker", "default", "b", "http://broker/default/b")
    subscription = Subscription("t", "trigger default/t", "default", sink, policy=policy)
    await dispatcher.serve(door, [subscription], is_broker=True)
    ingress = BrokerIngress(lambda ns, name: dispatcher.exchange("Broker", ns, name))
    routes.put("test", {"127.0.0.1": ingress.route})
    gateway = Gateway(routes, clock)
    await gateway.listen("127.0.0.1", port, "external")
    print("up", flush=True)
    await stop.wait()
    await gateway.close(1)
    await dispatcher.stop(30)
    await client.close()


async def life(port: int, database: Path, sink: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await live(port, database, sink, stop)


def main() -> None:
    port, database, sink = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    child = 0
    for line in sys.stdin:
        match line.strip():
            case "live":
                child = os.fork()
                if child == 0:
                    asyncio.run(life(port, database, sink))
                    os._exit(0)
            case "kill":
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                print("dead", flush=True)
            case "end":
                os.kill(child, signal.SIGTERM)
                os.waitpid(child, 0)
                print("dead", flush=True)


if __name__ == "__main__":
    main()
