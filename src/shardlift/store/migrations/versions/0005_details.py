"""Indices that polls read by

`ix_step_of_node` also finds the row that the journal writes, which was looked for among all rows of the task.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_step_of_node", "step", ["task_id", "node", "status", "begin"])
    op.create_index("ix_task_newest", "task", ["cluster_id", "sequence"])


def downgrade() -> None:
    op.drop_index("ix_task_newest", "task")
    op.drop_index("ix_step_of_node", "step")
