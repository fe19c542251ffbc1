"""Kubernetes' own kinds, as far as clients of Knative look at them."""

from knlocal.resources.core.kinds import KINDS
from knlocal.resources.core.table import Field, message_fields

#: The Kubernetes version whose API is spoken here.
KUBERNETES_VERSION = "v1.34.0"

__all__ = ["KINDS", "KUBERNETES_VERSION", "Field", "message_fields"]
