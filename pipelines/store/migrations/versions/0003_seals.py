"""Digests of runs, tasks, verdicts and of what a stage left; seconds that a policy wrote."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DIGESTS = (("lineage", "digest"), ("tasks", "digest"), ("trajectories", "verdict_digest"))


def upgrade() -> None:
    """Add the digests and the seconds; rows from before have none."""
    for table, column in DIGESTS:
        op.add_column(table, sa.Column(column, sa.String(64), nullable=True))
    op.add_column("turns", sa.Column("generation_seconds", sa.Float(), nullable=True))
    name = sa.String(80).with_variant(sa.Text(), "postgresql")
    op.create_table(
        "seals",
        sa.Column("stage_run", name, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["stage_run"], ["lineage.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("stage_run", "kind"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("seals")
    op.drop_column("turns", "generation_seconds")
    for table, column in DIGESTS:
        op.drop_column(table, column)
