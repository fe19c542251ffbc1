"""The Kubernetes-compatible API over the store."""
