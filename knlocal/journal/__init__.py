"""What happened to every request and event."""
