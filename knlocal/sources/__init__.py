"""Event sources: one file per kind, `feature.Sources` builds them all."""

from knlocal.sources.feature import Sources

__all__ = ["Sources"]
