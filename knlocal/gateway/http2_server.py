"""stub"""

import asyncio


class Http2Connection(asyncio.Protocol):
    def __init__(self, context: object) -> None: ...
