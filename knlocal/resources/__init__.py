"""The nouns: typed API objects with defaulting and validation. Pure, no I/O."""
