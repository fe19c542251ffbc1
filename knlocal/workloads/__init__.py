"""Pods, Deployments, Jobs and core Services: what the other features run on."""
