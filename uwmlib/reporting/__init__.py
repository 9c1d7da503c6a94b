"""Results, reference checks, tables and figures."""

from uwmlib.reporting.conclusion import conclude, record
from uwmlib.reporting.data import describe_tuples
from uwmlib.reporting.measured import SIGNAL_KEYS, Measured, measured
from uwmlib.reporting.references import check_references, update_references
from uwmlib.reporting.results import flatten, load_results, save_results
from uwmlib.reporting.tables import LABELS, Table, as_text, paper_beside_ours, with_interval

__all__ = [
    "LABELS",
    "SIGNAL_KEYS",
    "Measured",
    "Table",
    "as_text",
    "check_references",
    "conclude",
    "describe_tuples",
    "flatten",
    "load_results",
    "measured",
    "paper_beside_ours",
    "record",
    "save_results",
    "update_references",
    "with_interval",
]
