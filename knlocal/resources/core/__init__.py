"""Kubernetes' own kinds, as far as clients of Knative look at them."""

from knlocal.resources.core.kinds import KINDS
from knlocal.resources.core.table import Field, message_fields

__all__ = ["KINDS", "Field", "message_fields"]
