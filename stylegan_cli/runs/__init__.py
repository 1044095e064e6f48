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
    snapshots,
)
from .lock import is_running, lock_run
from .records import append_line, metric_lines, read_metrics, record_metric
from .summary import RunSummary, summarize_run
