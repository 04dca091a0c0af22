"""The one door for api, command line and pages."""

from shardlift.service.service import Service, open_service

__all__ = ["Service", "open_service"]
