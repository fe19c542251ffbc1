"""A function as `kn func create -l python` makes it."""

import os


def new():
    return Function()


class Function:
    def __init__(self):
        self.greeting = "Hello"

    def start(self, cfg):
        self.greeting = os.environ.get("GREETING", self.greeting)

    async def handle(self, scope, receive, send):
        name = scope["path"].strip("/") or "stranger"
        body = f"{self.greeting}, {name}\n".encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [[b"content-type", b"text/plain"]],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def ready(self):
        return True, "ready"
