"""EventPolicies: what their condition says while OIDC is off, as it is here (behaviour E12)."""

from __future__ import annotations

from knlocal.control.conditions import Conditions

REASON = "OIDCDisabled"
MESSAGE = 'Feature "authentication-oidc" must be enabled to support Authorization'


def policies_off(conditions: Conditions) -> None:
    conditions.true("EventPoliciesReady", REASON, MESSAGE)
