"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, those that others refer to first."""
    _make_lineage()
    _make_tasks()
    _make_curation()
    _make_trajectories()
    _make_executions()
    _make_scores()
    _make_turns()


def downgrade() -> None:
    """Undo."""
    op.drop_table("turns")
    op.drop_table("scores")
    op.drop_table("executions")
    with op.batch_alter_table("trajectories", schema=None) as batch_op:
        batch_op.drop_index("ix_trajectories_task")

    op.drop_table("trajectories")
    op.drop_table("curation")
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tasks_task_id"))
        batch_op.drop_index(batch_op.f("ix_tasks_family"))

    op.drop_table("tasks")
    with op.batch_alter_table("lineage", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_lineage_stage"))
        batch_op.drop_index(batch_op.f("ix_lineage_parent"))
        batch_op.drop_index(batch_op.f("ix_lineage_key"))

    op.drop_table("lineage")


def _make_lineage() -> None:
    op.create_table(
        "lineage",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("stage", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("preset", sa.String(length=80), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("parent", sa.String(length=80), nullable=True),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("code_version", sa.String(length=64), nullable=False),
        sa.Column("git_commit", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("lineage", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_lineage_key"), ["key"], unique=False)
        batch_op.create_index(batch_op.f("ix_lineage_parent"), ["parent"], unique=False)
        batch_op.create_index(batch_op.f("ix_lineage_stage"), ["stage"], unique=False)


def _make_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("family", sa.String(length=80), nullable=False),
        sa.Column("split", sa.String(length=10), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("answer_kind", sa.String(length=20), nullable=False),
        sa.Column("tolerance", sa.Float(), nullable=False),
        sa.Column("choices", sa.JSON(), nullable=False),
        sa.Column("difficulty", sa.String(length=10), nullable=False),
        sa.Column("needs_picture", sa.Boolean(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tasks_family"), ["family"], unique=False)
        batch_op.create_index(batch_op.f("ix_tasks_task_id"), ["task_id"], unique=False)


def _make_curation() -> None:
    op.create_table(
        "curation",
        sa.Column("stage_run", sa.String(length=80), nullable=False),
        sa.Column("task_key", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("is_kept", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("band", sa.String(length=10), nullable=False),
        sa.Column("weak_rate", sa.Float(), nullable=True),
        sa.Column("strong_rate", sa.Float(), nullable=True),
        sa.Column("demonstration", sa.String(length=80), nullable=True),
        sa.ForeignKeyConstraint(
            ["stage_run"],
            ["lineage.id"],
        ),
        sa.ForeignKeyConstraint(
            ["task_key"],
            ["tasks.key"],
        ),
        sa.PrimaryKeyConstraint("stage_run", "task_key"),
    )


def _make_trajectories() -> None:
    op.create_table(
        "trajectories",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stage_run", sa.String(length=80), nullable=False),
        sa.Column("phase", sa.String(length=80), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("task_key", sa.String(length=64), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("opening", sa.JSON(), nullable=False),
        sa.Column("ending", sa.String(length=20), nullable=False),
        sa.Column("accuracy", sa.Float(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("pass_rate", sa.Float(), nullable=True),
        sa.Column("tool_calls", sa.Integer(), nullable=False),
        sa.Column("tool_successes", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["stage_run"],
            ["lineage.id"],
        ),
        sa.ForeignKeyConstraint(
            ["task_key"],
            ["tasks.key"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("stage_run", "phase", "step", "task_key", "sample"),
    )
    with op.batch_alter_table("trajectories", schema=None) as batch_op:
        batch_op.create_index("ix_trajectories_task", ["task_key"], unique=False)


def _make_executions() -> None:
    op.create_table(
        "executions",
        sa.Column("trajectory", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("stdout", sa.Text(), nullable=False),
        sa.Column("stderr", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("wall_seconds", sa.Float(), nullable=False),
        sa.Column("cpu_seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["trajectory"], ["trajectories.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trajectory", "number"),
    )


def _make_scores() -> None:
    op.create_table(
        "scores",
        sa.Column("trajectory", sa.Integer(), nullable=False),
        sa.Column("scoring", sa.String(length=80), nullable=False),
        sa.Column("term", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["trajectory"], ["trajectories.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trajectory", "scoring", "term"),
    )


def _make_turns() -> None:
    op.create_table(
        "turns",
        sa.Column("trajectory", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=10), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("format_fault", sa.Text(), nullable=True),
        sa.Column("reply", sa.JSON(), nullable=True),
        sa.Column("has_evidence", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["trajectory"], ["trajectories.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("trajectory", "number"),
    )
