"""Engine images: the catalogue of releases, and the store that fetches, verifies and unpacks their archives."""

from shardlift.images.archive import open_folder
from shardlift.images.catalogue import Catalogue
from shardlift.images.store import ImageStore, Progress, UnpackedImage

__all__ = ["Catalogue", "ImageStore", "Progress", "UnpackedImage", "open_folder"]
