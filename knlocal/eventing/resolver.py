"""Destinations are resolved in `knlocal.control.destinations`, which sources share with eventing."""

from knlocal.control.destinations import Address, Destinations, Unresolved

__all__ = ["Address", "Destinations", "Unresolved"]
