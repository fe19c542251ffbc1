"""Knative's pod autoscaler: what is measured, what is decided, and how it is brought about."""
