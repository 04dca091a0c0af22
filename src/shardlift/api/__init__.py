"""The CSS API, the native API and their documentation page."""

from shardlift.api.app import create_app

__all__ = ["create_app"]
