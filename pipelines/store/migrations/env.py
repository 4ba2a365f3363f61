"""Run by Alembic: applies the migrations on the connection that the store hands over."""

from alembic import context

connection = context.config.attributes["connection"]
metadata = context.config.attributes["metadata"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
