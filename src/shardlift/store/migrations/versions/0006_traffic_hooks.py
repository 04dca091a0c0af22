"""Traffic hooks of clusters"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("cluster", schema=None) as batch_op:
        batch_op.add_column(sa.Column("traffic_hook", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("traffic_hook_sealed", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("cluster", schema=None) as batch_op:
        for name in ("traffic_hook_sealed", "traffic_hook"):
            batch_op.drop_column(name)
