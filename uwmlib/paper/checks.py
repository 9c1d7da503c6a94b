"""Statements about printed numbers as short formulas, and whether the printed cells bear them out.

A formula is read by a grammar of its own (Python's `ast` only parses it) and nothing of it is executed:

- `t1["UWM", "gs"]` is a cell of the paper's Table 1; several rows or scores, separated by spaces, are a block of
  cells, and `SETS`, `METHODS` and `PREFERENCES` stand for the names that they say;
- `+ - * /`, `< <= == >= >` and `and` work cell by cell, and a statement holds if it holds for every cell;
- `mean` is over the cells of each row, `highest` over rows, `rounded` to one decimal, half up; `size` counts cells and
  `count` those for which a comparison holds; `rising(x)` says that every row is above the one before it.

A cell that is illegible in our copy is unknown, and so is a comparison with it: a statement about it can still fail, by
another cell, but it cannot hold.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.paper.values import N_TABLES, paper_table

SMALLEST = 1e-9  #: printed numbers differ by a hundredth at least

LISTS: dict[str, Callable[[int], list[str]]] = {
    "SETS": lambda table: [key for key in paper_table(table).columns if key != "zs_mean"],
    "METHODS": lambda table: [row for row in paper_table(table).index if row != "CLIP"],
    "PREFERENCES": lambda table: ["p_s_t", "p_u_t", "p_s_v", "p_u_v"],
}
ARITHMETIC = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
COMPARISONS: dict[type, Callable[[np.ndarray], np.ndarray]] = {
    ast.Lt: lambda gap: gap < -SMALLEST, ast.LtE: lambda gap: gap <= SMALLEST,
    ast.Eq: lambda gap: abs(gap) <= SMALLEST,
    ast.GtE: lambda gap: gap >= -SMALLEST, ast.Gt: lambda gap: gap > SMALLEST,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda x: x.mean(axis=1, keepdims=True),
    "highest": lambda x: x.max(axis=0, keepdims=True),
    "rounded": lambda x: np.floor(x * 10 + 0.5 + SMALLEST) / 10,
    "size": lambda x: np.array([[float(x.size)]]),
    "count": lambda x: x.sum(keepdims=True),
}


@dataclass(frozen=True)
class Checked:
    """What the printed cells say to a formula.

    Attributes
    ----------
    holds : bool or None
        None where an illegible cell decides.
    left, right : float
        The two sides of the comparison that decides: the first that fails or, if none does, that is unknown; else the
        closest one. NaN where a side is illegible.
    """

    holds: bool | None
    left: float
    right: float


def check_printed(formula: str) -> Checked:
    """Evaluate a formula on the cells that the paper prints.

    Parameters
    ----------
    formula : str
        As the module says.

    Returns
    -------
    Checked

    Raises
    ------
    UwmError
        If the formula holds anything that the grammar does not have, or names no cell of the paper's.

    Examples
    --------
    >>> from uwmlib.paper.checks import check_printed
    >>> check_printed('rounded(mean(t2["G-Safe-CLIP", SETS])) == t2["G-Safe-CLIP", "zs_mean"]')
    Checked(holds=False, left=56.2, right=56.3)
    >>> check_printed('t4["CoCa+UWM", "gs"] > t4["CoCa", "gs"]').holds is None
    True
    """
    reader = _Reader(formula)
    truth = reader.whole()
    _, left, right = next(one for one in reader.compared if np.array_equal(one[0], truth, equal_nan=True))
    return Checked(None if math.isnan(truth) else bool(truth), round(left, 6), round(right, 6))


@dataclass
class _Reader:
    """Walks a formula; numbers are arrays [rows, scores], truths such arrays of 1, 0 and NaN for unknown."""

    formula: str
    compared: list[tuple[float, float, float]] = field(default_factory=list)  # truth, left, right

    def whole(self) -> float:
        try:
            tree = ast.parse(self.formula.strip(), mode="eval").body
        except SyntaxError as error:
            raise UwmError(f"{self.formula!r} is no formula: {error.msg}.") from error
        parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
        return float(_both(np.array([_both(self.truth(part).ravel()) for part in parts])))

    def truth(self, node: ast.expr) -> np.ndarray:
        if isinstance(node, ast.Compare):
            sides = [self.number(side) for side in (node.left, *node.comparators)]
            pairs = zip(node.ops, sides, sides[1:], strict=False)
            return _both(np.stack(np.broadcast_arrays(*(self.compare(*pair) for pair in pairs))))
        if isinstance(node, ast.Call) and self.name(node) == "rising":
            x = self.number(node.args[0])
            return self.compare(ast.Gt(), x[1:], x[:-1])
        raise self.refusal(node)

    def number(self, node: ast.expr) -> np.ndarray:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return np.array([[float(node.value)]])
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return ARITHMETIC[type(node.op)](self.number(node.left), self.number(node.right))
        if isinstance(node, ast.Subscript):
            return self.cells(node)
        if isinstance(node, ast.Call) and self.name(node) in FUNCTIONS:
            known = len(self.compared)
            of = self.truth if self.name(node) == "count" else self.number
            value = FUNCTIONS[self.name(node)](of(node.args[0]))
            del self.compared[known:]  # what was only counted decides nothing
            return value
        raise self.refusal(node)

    def cells(self, node: ast.Subscript) -> np.ndarray:
        tables = {f"t{number}": number for number in range(1, N_TABLES + 1)}
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        if name not in tables or not isinstance(node.slice, ast.Tuple) or len(node.slice.elts) != 2:
            raise self.refusal(node)
        rows, keys = (self.names(each, tables[name]) for each in node.slice.elts)
        printed = paper_table(tables[name])
        if missing := [row for row in rows if row not in printed.index] + [
            k for k in keys if k not in printed
        ]:
            raise UwmError(
                f"Table {tables[name]} of the paper has no {missing[0]!r}: correct {self.formula!r}."
            )
        return printed.loc[rows, keys].to_numpy()

    def names(self, node: ast.expr, table: int) -> list[str]:
        if isinstance(node, ast.Name) and node.id in LISTS:
            return LISTS[node.id](table)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip():
            return node.value.split()
        raise self.refusal(node)

    def compare(self, relation: ast.cmpop, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        if type(relation) not in COMPARISONS:
            raise self.refusal(relation)
        left, right = np.broadcast_arrays(left, right)
        gap = left - right
        found = np.where(np.isnan(gap), np.nan, COMPARISONS[type(relation)](gap))
        closest = np.argsort(abs(gap), axis=None)
        self.compared += [tuple(float(x.flat[at]) for x in (found, left, right)) for at in closest]
        return found

    def name(self, call: ast.Call) -> str:
        if not isinstance(call.func, ast.Name) or call.keywords or len(call.args) != 1:
            raise self.refusal(call)
        return call.func.id

    def refusal(self, node: ast.AST) -> UwmError:
        what = type(node).__name__ if isinstance(node, ast.cmpop) else ast.unparse(node)
        return UwmError(
            f"{what} is nothing that a formula may hold: see uwmlib.paper.checks for what it may."
        )


def _both(truths: np.ndarray) -> np.ndarray:
    """Join along the first axis: 0 if one is 0, else NaN if one is; unknown decides where nothing fails."""
    unknown = np.where(np.isnan(truths).any(axis=0), np.nan, 1.0)
    return np.where((truths == 0).any(axis=0), 0.0, unknown)
