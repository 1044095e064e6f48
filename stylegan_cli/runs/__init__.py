"""Run folders: where a run is, who holds it, how far it has come, and a page that shows it."""

from .folders import (
    PACKAGED_MODEL,
    find_model,
    find_run,
    latest_snapshot,
    list_runs,
    newest_run,
    next_run_dir,
    snapshot_name,
)
from .lock import is_running, lock_run
from .summary import RunSummary, summarize_run

__all__ = [
    "PACKAGED_MODEL",
    "RunSummary",
    "find_model",
    "find_run",
    "is_running",
    "latest_snapshot",
    "list_runs",
    "lock_run",
    "newest_run",
    "next_run_dir",
    "snapshot_name",
    "summarize_run",
]
