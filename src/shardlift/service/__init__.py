"""The one door for api, command line and pages."""

from shardlift.service.opening import open_service
from shardlift.service.service import Service

__all__ = ["Service", "open_service"]
