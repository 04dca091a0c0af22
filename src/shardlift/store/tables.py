"""The tables. Times are UTC; JSON columns hold what no query looks into."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """A time with zone in, a time with zone out; SQLite itself keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


def stored(value: datetime) -> str:
    """A time as a `UtcTime` lies in the database, for statements that go past SQLAlchemy."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


project = Table(
    "project",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
)

access_key = Table(
    "access_key",
    metadata,
    Column("ak", String(64), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False, index=True),
    Column("name", String(64), nullable=False, server_default=""),
    # Checking an HMAC needs the secret itself, so it is encrypted (store.vault); a token is only ever compared.
    Column("secret", Text, nullable=False),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime),
    # What was rotated away, good until `previous_until`.
    Column("previous_secret", Text),
    Column("previous_token_sha256", String(64), unique=True),
    Column("previous_until", UtcTime),
)

agency = Table(
    "agency",
    metadata,
    Column("project_id", ForeignKey("project.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("actions", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

# Rows are only ever added, and removed by age and count; a trigger refuses changes.
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False, index=True),
    # No foreign key: what was done in a project is known after the project has gone. Empty for a key that nobody has.
    Column("project_id", String(32), nullable=False),
    Column("signin", Boolean, nullable=False),
    Column("actor", String(140), nullable=False),
    Column("address", String(64), nullable=False),
    Column("door", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("cluster_id", String(36), nullable=False),
    Column("task_id", String(36), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("code", String(32), nullable=False),
    Column("request_id", String(64), nullable=False),
    Index("ix_audit_of_project", "project_id", "signin", "id"),
    sqlite_autoincrement=True,
)

cluster = Table(
    "cluster",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("engine", String(32), nullable=False),
    Column("version", String(32), nullable=False),
    Column("image_id", String(64), nullable=False),
    Column("driver", String(16), nullable=False),
    Column("strategy", String(16), nullable=False),
    Column("status", String(8), nullable=False),
    Column("heap_mib", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("failed_reason", Text),
    # What may be shown of its traffic hook, and all of it, sealed (store.hooks).
    Column("traffic_hook", JSON(none_as_null=True)),
    Column("traffic_hook_sealed", Text),
    Column("lease_owner", String(128)),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("epoch", Integer, nullable=False, server_default="0"),
    UniqueConstraint("project_id", "name"),
)

node = Table(
    "node",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("cluster_id", ForeignKey("cluster.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("instance_type", String(16), nullable=False),
    Column("roles", JSON, nullable=False),
    Column("zone", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("http_port", Integer, nullable=False),
    Column("transport_port", Integer, nullable=False),
    Column("image_id", String(64), nullable=False),
    UniqueConstraint("cluster_id", "name"),
    UniqueConstraint("address", "http_port"),
)

task = Table(
    "task",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("cluster_id", ForeignKey("cluster.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("image_id", String(64), nullable=False),
    Column("strategy", String(16), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("agency", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("execute_times", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("bytes_moved", Integer, nullable=False),
    Column("aborting", Boolean, nullable=False),
    Column("fail_message", Text),
    Column("policy", JSON, nullable=False, server_default="{}"),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("approved", Boolean, nullable=False, server_default=false()),
    Column("at_rest", Boolean, nullable=False, server_default=false()),
    Column("hold_until", UtcTime),
    Column("waiting_for", Text),
    Index("ix_task_of_cluster", "cluster_id", "kind", "sequence"),
    Index("ix_task_newest", "cluster_id", "sequence"),
    # At most one unfinished task on a cluster, whoever submits it and however many at once.
    Index(
        "uq_task_running",
        "cluster_id",
        unique=True,
        sqlite_where=text("status = 'RUNNING'"),
        postgresql_where=text("status = 'RUNNING'"),
    ),
)

# Upgrades approved together, each of which becomes a task once the one before it has succeeded.
route = Table(
    "route",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("cluster_id", ForeignKey("cluster.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("strategy", String(16)),
    Column("agency", String(64), nullable=False),
    Column("backup_check", Boolean, nullable=False),
    Column("load_check", Boolean, nullable=False),
    Column("policy", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("waiting_for", Text),
    Column("look_at", UtcTime),
    Index(
        "uq_route_running",
        "cluster_id",
        unique=True,
        sqlite_where=text("status = 'RUNNING'"),
        postgresql_where=text("status = 'RUNNING'"),
    ),
)

route_hop = Table(
    "route_hop",
    metadata,
    Column("route_id", ForeignKey("route.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("image_id", String(64), nullable=False),
    Column("task_id", ForeignKey("task.id", ondelete="SET NULL")),
    UniqueConstraint("task_id"),
)

step = Table(
    "step",
    metadata,
    Column("task_id", ForeignKey("task.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("node", String(128), nullable=False),
    Column("order", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("desc", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("begin", UtcTime),
    Column("end", UtcTime),
    Column("evidence", JSON, nullable=False),
    Column("progress", JSON, nullable=False),
    # Of its task when the row last changed: what has changed since can be told to who was away.
    Column("revision", Integer, nullable=False, server_default="0"),
    # Tells which nodes are done without a look at the rows themselves.
    Index("ix_step_of_node", "task_id", "node", "status", "begin"),
)

setting_change = Table(
    "setting_change",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("cluster_id", ForeignKey("cluster.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("task_id", ForeignKey("task.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("layer", String(16), nullable=False),
    Column("key", String(256), nullable=False),
    Column("before", Text),
    Column("ours", Text, nullable=False),
    Column("restored", Boolean, nullable=False),
    Column("note", Text, nullable=False),
)

recovery = Table(
    "recovery",
    metadata,
    Column("task_id", ForeignKey("task.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(512), primary_key=True),
    Column("bytes", Integer, nullable=False),
)
