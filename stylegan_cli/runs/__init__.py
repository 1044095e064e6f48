"""Run folders: finding and locking runs, their records and state, and the report page."""

from .folders import (
    PACKAGED_MODEL,
    find_model,
    find_run,
    latest_snapshot,
    list_runs,
    newest_run,
    next_run_dir,
    snapshot_name,
    snapshots,
)
from .lock import is_running, lock_run
from .records import append_line, metric_lines, read_metrics, record_metric
from .summary import RunSummary, summarize_run, unit_of
