"""Everything that must survive a crash: projects, clusters, tasks, their journal, the ledger and the leases."""

from shardlift.store.changes import changed_task, newest_tasks, task_revision
from shardlift.store.database import Database, StoreError, open_database
from shardlift.store.details import Details, PageState
from shardlift.store.journal import Control, Journal, SettingChange
from shardlift.store.leases import Lease, Leases
from shardlift.store.policy import set_policy
from shardlift.store.store import Store

__all__ = [
    "Control",
    "Database",
    "Details",
    "Journal",
    "Lease",
    "Leases",
    "PageState",
    "SettingChange",
    "Store",
    "StoreError",
    "changed_task",
    "newest_tasks",
    "open_database",
    "set_policy",
    "task_revision",
]
