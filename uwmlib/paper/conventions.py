"""What the paper prints, what the released code does and what this library does, convention by convention."""

from __future__ import annotations

import pandas as pd

from uwmlib.manifests import manifest_path

#: How paper and released code stand to each other.
KINDS = ("differs", "silent", "same")


def conventions() -> pd.DataFrame:
    """Return every convention that a number of the paper hangs on.

    Returns
    -------
    DataFrame
        Index: key. Columns, all text: `part` of the work; `convention`; what is `printed`, what the `released` code
        does, what the library does by default (`here`); `switch`, the option for the others as "module:name:parameter",
        empty where there is none; `kind`, "differs" where paper and code do, "silent" where the paper does not say,
        "same"; `rows` of the study of conventions, separated by semicolons; `facts`, the place in our notes on the
        released code.

    Examples
    --------
    >>> from uwmlib.paper import conventions
    >>> order = conventions().loc["order"]
    >>> order["released"], order["switch"]
    ("mean of each pair's ratio", 'uwmlib.editing:Scores.select:variant')
    """
    path = manifest_path("conventions.csv")
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("key")
