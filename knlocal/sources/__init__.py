"""Event sources: one file per kind."""
