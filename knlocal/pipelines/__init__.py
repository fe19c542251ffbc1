"""Tekton tasks and pipelines."""
