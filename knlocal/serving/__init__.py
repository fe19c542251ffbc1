"""Knative Serving: services, configurations, revisions, routes, autoscaling, the request path."""
