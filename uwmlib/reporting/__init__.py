"""Results, reference checks, tables and figures."""

from uwmlib.reporting.conclusion import conclude, record, record_edits
from uwmlib.reporting.data import describe_tuples
from uwmlib.reporting.references import check_references, recorded_values, update_references
from uwmlib.reporting.results import flatten, save_results
from uwmlib.reporting.searchable import SearchableTable
from uwmlib.reporting.tables import Table, as_text, paper_beside_ours, with_interval

__all__ = [
    "SearchableTable",
    "Table",
    "as_text",
    "check_references",
    "conclude",
    "describe_tuples",
    "flatten",
    "paper_beside_ours",
    "record",
    "record_edits",
    "recorded_values",
    "save_results",
    "update_references",
    "with_interval",
]
