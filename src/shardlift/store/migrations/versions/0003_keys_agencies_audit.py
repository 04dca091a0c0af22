"""Keys that rotate, encrypted secrets, agencies, and the audit log

The secrets that are there are encrypted right after this, when the service opens: that needs the master key, which a
schema has no business with.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("access_key", schema=None) as batch_op:
        batch_op.alter_column("sk", new_column_name="secret", existing_type=sa.String(length=128), type_=sa.Text())
        batch_op.add_column(sa.Column("name", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("previous_secret", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("previous_token_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(batch_op.f("ix_access_key_project_id"), ["project_id"], unique=False)
        batch_op.create_unique_constraint(batch_op.f("uq_access_key_previous_token_sha256"), ["previous_token_sha256"])
    op.create_table(
        "agency",
        sa.Column("project_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_agency_project_id")),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_agency")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.String(length=32), nullable=False),
        sa.Column("signin", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.String(length=140), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("door", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("cluster_id", sa.String(length=36), nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_at"), ["at"], unique=False)
        batch_op.create_index("ix_audit_of_project", ["project_id", "signin", "id"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )


def downgrade() -> None:
    """Encrypted secrets stay encrypted, so an older Shardlift needs new keys."""
    op.drop_table("audit")
    op.drop_table("agency")
    with op.batch_alter_table("access_key", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_access_key_previous_token_sha256"), type_="unique")
        batch_op.drop_index(batch_op.f("ix_access_key_project_id"))
        for name in ("previous_until", "previous_token_sha256", "previous_secret", "last_used_at", "name"):
            batch_op.drop_column(name)
        batch_op.alter_column("secret", new_column_name="sk", existing_type=sa.Text(), type_=sa.String(length=128))
