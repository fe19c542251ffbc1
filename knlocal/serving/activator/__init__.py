"""The request path: Knative's activator and queue-proxy in one step."""
