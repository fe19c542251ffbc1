"""Knative Eventing: brokers, triggers, channels, subscriptions, flows, delivery."""
