"""Destinations: `knlocal.control.destinations` resolves them, for sources as for eventing."""

from knlocal.control.destinations import Address, Destinations, Unresolved

__all__ = ["Address", "Destinations", "Unresolved"]
