"""Settings, read from `SHARDLIFT_*` environment variables. docs/settings.md lists them, held to this by a test."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shardlift.errors import UsageError


def default_home() -> Path:
    """The platform's user data folder; for root the system's, because engines run as another user who must reach it."""
    if os.geteuid() == 0:
        return Path("/var/lib/shardlift")
    return platformdirs.user_data_path("shardlift", appauthor=False)


class Settings(BaseSettings):
    """All knobs with their defaults. Time limits are seconds and bound one sub-step of one node."""

    model_config = SettingsConfigDict(env_prefix="SHARDLIFT_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=default_home, description="database, images, local nodes, credentials")
    host: str = Field(default="127.0.0.1", description="address that `serve` listens on")
    port: int = Field(default=8450, ge=0, le=65535, description="port that `serve` listens on, 0 for any free one")
    node_user: str = Field(default="nobody", description="user that engines run as when Shardlift itself runs as root")
    java_homes: str = Field(default="", description="JVM folders to prefer, separated by colons")
    heap_mib: int = Field(default=512, ge=128, le=32_768, description="heap of each new local node, MiB")
    drain_timeout_s: float = Field(default=48 * 3600, gt=0, description="bound of sub-step 0, whole node")
    drain_stalled_s: float = Field(
        default=31, ge=0, description="a drain without movement for so long, with a permanent no, fails"
    )
    moves_max: int = Field(default=32, ge=1, le=100, description="explicit moves of shard copies under way at once")
    moves_max_bytes: int = Field(
        default=8 * 2**30, ge=1, description="no more of these moves are begun while so many bytes are on their way"
    )
    recovery_raise_max: int = Field(
        default=4,
        ge=1,
        le=100,
        description="how many times its value the engines' recovery limit is raised at most while copies leave a node "
        "and no node is busy; 1: never",
    )
    safety_timeout_s: float = Field(
        default=600, gt=0, description="how long sub-step 1 waits for what passes: a snapshot, shards on the move"
    )
    handover_timeout_s: float = Field(default=30, gt=0, description="bound of sub-step 2")
    lease_timeout_s: float = Field(
        default=45,
        ge=0,
        description="how long sub-step 4 waits, in place, until the engine has noted that the node's copies have what "
        "was written lately; it does so every 30 s, and else copies their files when the node is back",
    )
    stop_timeout_s: float = Field(default=60, gt=0, description="SIGTERM to SIGKILL, sub-step 6")
    boot_timeout_s: float = Field(default=300, gt=0, description="process start to HTTP answer, sub-step 10")
    rejoin_timeout_s: float = Field(default=600, gt=0, description="bound of joining and settling, sub-step 11")
    gate_interval_s: float = Field(default=5, gt=0, description="pause between two readings that a gate compares")
    project_clusters_max: int = Field(
        default=20, ge=1, description="clusters of one project that are worked on at a time; other tasks wait"
    )
    project_streams_max: int = Field(
        default=32, ge=1, description="event streams of one project that are open at a time; the next is answered 429"
    )
    clusters_max: int = Field(default=20, ge=1, description="clusters that one process works on at a time")
    master_key_file: str = Field(
        default="", description="file of the master key that secrets are encrypted with; empty: master.key in the home"
    )
    tls_cert_file: str = Field(
        default="", description="PEM file with the server's certificate and its chain; empty: plain HTTP"
    )
    tls_key_file: str = Field(default="", description="PEM file with the private key of that certificate")
    tls_ca_file: str = Field(
        default="", description="PEM file of the authority that our own clients trust besides the system's"
    )
    key_rate_per_s: float = Field(
        default=500, ge=0, description="requests a second that one key may go on with, 0: any"
    )
    key_rate_burst: int = Field(default=5000, ge=1, description="requests that one key may make at once")
    refused_rate_per_s: float = Field(
        default=1, ge=0, description="refused sign-ins a second that one client address may go on with, 0: any"
    )
    refused_rate_burst: int = Field(default=60, ge=1, description="refused sign-ins that one address may cause at once")
    audit_records_max: int = Field(default=10_000, ge=1, description="records of the audit log kept for each project")
    audit_days: int = Field(default=400, ge=1, description="days for which records of the audit log are kept")
    zones: str = Field(
        default="", description="zones that nodes may be moved to, joined by commas; empty: any well-formed name"
    )
    lease_s: float = Field(default=8, gt=0, description="length of a lease on a cluster")
    lease_renew_s: float = Field(default=2, gt=0, description="pause between two renewals of the lease")

    @property
    def zone_names(self) -> frozenset[str]:
        """Zones that nodes may be moved to; empty when any name will do."""
        return frozenset(part.strip() for part in self.zones.split(",") if part.strip())

    @property
    def database_path(self) -> Path:
        return self.home / "shardlift.db"

    @property
    def master_key_path(self) -> Path:
        return Path(self.master_key_file) if self.master_key_file else self.home / "master.key"

    @property
    def credentials_path(self) -> Path:
        return self.home / "credentials.toml"

    @property
    def images_path(self) -> Path:
        return self.home / "images"

    @property
    def sim_path(self) -> Path:
        return self.home / "sim"

    @property
    def nodes_path(self) -> Path:
        return self.home / "nodes"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment; `overrides` win. Raises UsageError that names the variable and its value."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks them, and its errors are told below
    except ValidationError as error:
        first = error.errors()[0]
        name = "SHARDLIFT_" + str(first["loc"][0]).upper() if first["loc"] else "SHARDLIFT_*"
        raise UsageError(
            f"setting {name} is not usable: {first['msg']}",
            field=name,
            value=first.get("input"),
            remedy="see docs/settings.md",
        ) from None
