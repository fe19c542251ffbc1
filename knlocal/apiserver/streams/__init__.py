"""Two-way streams into pods: WebSocket channels, SPDY/3.1 (bare or inside a WebSocket)."""
