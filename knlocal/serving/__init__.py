"""Serving: revisions that scale with their requests, and the routes to them."""

from knlocal.serving.activator.revision import Served
from knlocal.serving.feature import Serving
from knlocal.serving.hosts import Ports
from knlocal.serving.image_resolver import ImageResolver, ImageUnresolved, KeepTags

__all__ = ["ImageResolver", "ImageUnresolved", "KeepTags", "Ports", "Served", "Serving"]
