"""The project folder: knlocal.toml, manifests, hot reload."""
