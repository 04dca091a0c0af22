"""Control of tasks: policy, pause, approval, and why nothing moves"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.add_column(sa.Column("policy", sa.JSON(), server_default="{}", nullable=False))
        batch_op.add_column(sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("approved", sa.Boolean(), server_default=sa.false(), nullable=False))
        # Of a task that was under way nobody knows whether a node is half done, so it is not at rest.
        batch_op.add_column(sa.Column("at_rest", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("hold_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("waiting_for", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("task", schema=None) as batch_op:
        for name in ("waiting_for", "hold_until", "at_rest", "approved", "paused", "policy"):
            batch_op.drop_column(name)
