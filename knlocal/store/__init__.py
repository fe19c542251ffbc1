"""The one store of objects, with Kubernetes semantics."""
