"""Runs on disk: their folders, records and groups. Nothing here loads JAX."""

from dlm.runs.groups import (
    ENSEMBLE,
    OF_KIND,
    Family,
    Panel,
    Setting,
    base_of,
    check_seeds,
    family_of,
    panel_key,
    panels,
    setting_of,
)
from dlm.runs.load import Curve, Run, folders, is_run, load, value_at
from dlm.runs.table import (
    COLUMNS,
    best_tokens,
    data_of,
    rows,
    safe,
    table,
    unsafe,
    write_table,
)

__all__ = [
    "COLUMNS",
    "Curve",
    "ENSEMBLE",
    "Family",
    "OF_KIND",
    "Panel",
    "Run",
    "Setting",
    "base_of",
    "best_tokens",
    "check_seeds",
    "data_of",
    "family_of",
    "folders",
    "is_run",
    "load",
    "panel_key",
    "panels",
    "rows",
    "safe",
    "setting_of",
    "table",
    "unsafe",
    "value_at",
    "write_table",
]
