"""${message}

Is it safe on a live system? Expand, backfill in batches, enforce: three migrations, never one.
No statement here may wait long for a lock (lock_timeout is 5 s); indexes on filled tables are made
concurrently, inside `with op.get_context().autocommit_block():`.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
