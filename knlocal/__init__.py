"""knlocal: Knative on one machine, without Kubernetes."""

__version__ = "0.1.0"
