"""Shardlift: rolling upgrades of self-hosted Elasticsearch and OpenSearch clusters."""

__version__ = "0.1.0"
