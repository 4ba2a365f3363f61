"""A digest with every trajectory; on PostgreSQL, names of any length."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NAMES = {
    ("lineage", "id"): 80,
    ("lineage", "preset"): 80,
    ("lineage", "parent"): 80,
    ("tasks", "family"): 80,
    ("curation", "stage_run"): 80,
    ("curation", "demonstration"): 80,
    ("trajectories", "stage_run"): 80,
    ("trajectories", "phase"): 80,
    ("scores", "scoring"): 80,
    ("scores", "term"): 40,
}
"""What users name, and how long it could be at first. SQLite never held anybody to that."""


def upgrade() -> None:
    """Add the digest; trajectories from before have none."""
    op.add_column("trajectories", sa.Column("digest", sa.String(64), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        for (table, column), length in NAMES.items():
            op.alter_column(table, column, existing_type=sa.String(length), type_=sa.Text())


def downgrade() -> None:
    """Undo."""
    if op.get_context().dialect.name == "postgresql":
        for (table, column), length in NAMES.items():
            op.alter_column(table, column, existing_type=sa.Text(), type_=sa.String(length))
    op.drop_column("trajectories", "digest")
