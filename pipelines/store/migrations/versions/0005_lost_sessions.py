"""Number of sessions that were lost while they ran the code of a trajectory."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the number; trajectories from before have none."""
    op.add_column("trajectories", sa.Column("sessions_lost", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("trajectories", "sessions_lost")
