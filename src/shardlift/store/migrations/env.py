"""Alembic's entry point: runs the migrations on the URL that `store.database` gives."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from shardlift.store.tables import metadata

_url = context.config.get_main_option("sqlalchemy.url")
assert _url is not None, "store.database sets the URL"
_engine = create_engine(_url)
with _engine.connect() as _connection:
    context.configure(connection=_connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
_engine.dispose()
