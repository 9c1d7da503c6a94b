"""Run a notebook of the book with checked parameters, and leave either a whole result or none.

papermill does the running. Two of its habits are too lenient for a result that is to be quoted: a misspelt
parameter is only warned about (the default is used), and any text is taken for a number. Both are refused
here before a kernel starts. A third, to read braces in a path as parameters, is avoided: papermill sees notebooks
and never a path, so there is no unfinished file either, whatever ends the run. Cells run in the caller's working
directory, so a relative path in a parameter means what it means in the shell; the notebooks themselves read
nothing by relative path.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwmlib.errors import UwmError
from uwmlib.options import known, shown
from uwmlib.outputs import check_output
from uwmlib.parameters import CHECKS, check_run

if TYPE_CHECKING:
    from nbformat import NotebookNode

PROJECT = "uwm-book"
KERNEL = "python3"
RUNS = "_runs"
CHECKING = ("check_run(", "checked_parameters(")  #: how a notebook says that its parameters are the book's
MAX_DEPTH = 20  #: of lists in a file of parameters
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


#: What reading a file that is no such thing can raise: syntax, types, text that is not UTF-8, bottomless nesting.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, SyntaxError, RecursionError, MemoryError)


class NotebookFailed(RuntimeError):
    """The notebook did not run to its end: the message says where it stopped, and where it is kept."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell.

    Attributes
    ----------
    name : str
    kind : str
        The annotation ("int", "float", "str", "bool", "list[int]", ...), else the type of the default.
    default : str
        The default as Python source.
    help : str
        The comment behind the line.
    """

    name: str
    kind: str
    default: str
    help: str


def notebooks_dir(folder: str | os.PathLike | None = None) -> Path:
    """Return the folder of notebooks: the one given, else that of a checkout of this project.

    The working directory comes first if it is such a checkout (its pyproject.toml says so), then the checkout
    that uwmlib was imported from. Any other `./notebooks` is somebody else's, and is not run by a mere number.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise UwmError(f"There is no folder {folder}: give the folder of notebooks.")
        return Path(folder)
    for checkout in (Path.cwd(), Path(__file__).resolve().parents[1]):
        if _is_checkout(checkout):
            return checkout / "notebooks"
    raise UwmError("No notebooks folder was found here: run in a checkout of uwm-book, or give their folder.")


def list_notebooks(folder: str | os.PathLike) -> list[Path]:
    """Return the numbered notebooks of `folder` in their order."""
    return sorted(Path(folder).glob("[0-9]*.ipynb"))


def find_notebook(which: str, folder: str | os.PathLike) -> Path:
    """Return the notebook that `which` names: a path, a number ("04" or "4") or a name without .ipynb.

    Raises
    ------
    UwmError
        If nothing, or more than one notebook, answers to that name.
    """
    if which.endswith(".ipynb") and Path(which).is_file():
        return Path(which)
    notebooks = list_notebooks(folder)
    stem = which.removesuffix(".ipynb")
    if stem.isdigit():
        found = [path for path in notebooks if path.stem.split("_")[0] == stem.zfill(2)]
    else:
        found = [path for path in notebooks if path.stem == stem]
    if len(found) == 1:
        return found[0]
    if found:
        raise UwmError(f"{which!r} names several notebooks ({_names(found)}): give one whole name.")
    raise UwmError(f"There is no notebook {which!r} in {folder}: choose from {_names(notebooks) or 'none'}.")


def declared_parameters(notebook: str | os.PathLike) -> dict[str, Parameter]:
    """Return the parameters that the cell tagged `parameters` declares, in their order.

    papermill reads one `name: type = default  # help` to a line and passes over what it cannot read (a union
    such as `str | None`, two targets at once), so such a line declares nothing.

    Raises
    ------
    UwmError
        If papermill is not installed, or cannot read the file as a notebook that names its kernel.
    """
    papermill = _papermill()
    node = _read_notebook(notebook)
    try:
        entries = papermill.inspect_notebook(node)
    except UNREADABLE as error:
        raise _no_notebook(notebook, error) from error
    declared = {}
    for name, entry in entries.items():
        kind = entry["inferred_type_name"].strip("\"'")
        default = entry["default"]
        # papermill writes the word None for "no annotation".
        kind = _kind_of(default) if kind == "None" else kind
        declared[name] = Parameter(name=name, kind=kind, default=default, help=entry["help"].strip())
    return declared


def check_parameters(given: Mapping[str, Any], declared: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of `given` in the declared types.

    Parameters
    ----------
    given : mapping of str to value
        Values are texts (as typed behind `-p`) or already typed (as read from a YAML file).
    declared : mapping of str to Parameter

    Returns
    -------
    dict

    Raises
    ------
    UwmError
        If a name is not declared (the nearest declared one is named), a value does not fit its type, or a
        notebook cannot hold it: infinite numbers, text that is not Unicode, what JSON has no form for.
    """
    for name in given:
        if not declared:
            raise UwmError(f"There is no parameter {name!r}: this notebook declares none.")
        known(name, declared, "parameter")
    return {name: _typed(declared[name], value) for name, value in given.items()}


def read_parameters(path: str | os.PathLike) -> dict[str, Any]:
    """Return the flat mapping of parameter names to values that a YAML file holds.

    Raises
    ------
    UwmError
        If it cannot be read, is no such mapping, gives a name twice, or repeats parts by reference (`&`, `*`).
    """
    import yaml

    if os.path.exists(path) and not os.path.isfile(path):
        raise UwmError(f"{path} is no file but a folder or a pipe: give a YAML file of parameters.")
    try:
        text = Path(path).read_text(encoding="utf-8")
        _refuse_bombs(path, yaml.parse(text, yaml.SafeLoader))
        root, values = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except OSError as error:
        raise UwmError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except UwmError:
        raise
    except (yaml.YAMLError, OverflowError, *UNREADABLE) as error:
        raise UwmError(f"{path} is not a YAML file: write one `name: value` to a line.") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UwmError(f"{path} holds no mapping of names to values: write one `name: value` to a line.")
    names = [key.value for key, _ in root.value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UwmError(f"{path} gives {twice!r} twice: keep one of the lines.")
    return values


def run_notebook(
    notebook: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    parameters: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Path:
    """Run `notebook` from top to bottom in a kernel of this Python and write the executed notebook.

    Parameters
    ----------
    notebook : path-like
    output : path-like, optional
        Where the executed notebook shall stand; `_runs/<name>.ipynb` in the working directory by default. It
        is written once the run is over, so an earlier result stays until a new one is whole.
    parameters : mapping, optional
        See `check_parameters`. In a notebook that calls `check_run` or `checked_parameters` they are checked by
        those as well.
    progress : bool
        Say on stderr which file is run, and show a bar that counts the cells.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    UwmError
        If a parameter is refused, `output` cannot be written or is a file that the run reads, or the kernel is
        another Python.
    NotebookFailed
        If a cell raises or the kernel dies. The notebook up to there is kept as
        `<output without .ipynb>.failed.ipynb`; the next success at this place removes it.
    """
    source = Path(notebook)
    output = Path(output) if output is not None else Path.cwd() / RUNS / source.name
    values = check_parameters(parameters or {}, declared_parameters(source))
    node = _read_notebook(source)
    if any(call in cell.source for cell in node.cells for call in CHECKING):
        check_run(**{name: value for name, value in values.items() if name in CHECKS})
    target, failed = _targets(output, source, values)
    check_kernel()
    import nbformat

    # Imported here because it loads torch: a refusal need not wait for that.
    from uwmlib.files import atomic_path

    if progress:
        print(f"Running {source.absolute()}", file=sys.stderr)
    executed = _prepared(node, values, source=source, target=output)
    stopped = _execute(executed, name=source.name, progress=progress)
    try:
        with atomic_path(failed if stopped else target) as temporary:
            temporary.write_text(nbformat.writes(executed), encoding="utf-8")
    except UwmError as error:
        if not stopped:
            raise
        raise NotebookFailed(f"{stopped}; the notebook so far was not kept: {error}") from error
    if stopped:
        raise NotebookFailed(f"{stopped}; the notebook so far is in {failed}.")
    # A success leaves no word of an earlier failure behind.
    failed.unlink(missing_ok=True)
    return output


def check_kernel() -> None:
    """Raise UwmError unless the kernel that papermill would start is the Python that runs this.

    A virtual environment without its own `python3` kernel silently borrows one of the user's, which has other
    packages; the numbers would then come from versions that nobody pinned.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        command = None
    # jupyter_client replaces a bare "python" by the running interpreter.
    if command in {"python", "python3", f"python3.{sys.version_info.minor}"}:
        return
    if command is None or os.path.abspath(command) != os.path.abspath(sys.executable):
        raise UwmError(
            f"The Jupyter kernel {KERNEL!r} starts {command or 'nothing'}, not {sys.executable}: "
            f"run `{sys.executable} -m ipykernel install --sys-prefix` once."
        )


def _papermill():
    try:
        import papermill
    except ImportError as error:
        raise UwmError(
            "papermill is not installed: run pip install -c constraints.txt '.[book]' in a checkout."
        ) from error
    return papermill


def _is_checkout(folder: Path) -> bool:
    """Whether `folder` is a checkout of this project, with its notebooks."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["name"] == PROJECT and (folder / "notebooks").is_dir()
    except (OSError, *UNREADABLE):
        return False


def _read_notebook(path: str | os.PathLike) -> NotebookNode:
    _papermill()
    import nbformat

    if os.path.exists(path) and not os.path.isfile(path):
        raise UwmError(f"{path} is no file but a folder or a pipe: give a notebook.")
    try:
        node = nbformat.reads(Path(path).read_text(encoding="utf-8"), as_version=4)
        nbformat.writes(node).encode()
        language = node.metadata.get("kernelspec", {}).get("language", "python")
    except (OSError, nbformat.ValidationError, *UNREADABLE) as error:
        raise _no_notebook(path, error) from error
    if language != "python":
        raise UwmError(f"{path} is a notebook of {language}: only Python notebooks are run.")
    return node


def _no_notebook(path: str | os.PathLike, error: BaseException) -> UwmError:
    return UwmError(f"{path} is no readable Python notebook ({_one_line(error)}): save it from Jupyter.")


def _targets(output: Path, source: Path, values: Mapping[str, Any]) -> tuple[Path, Path]:
    """Return the files of the result and of a failure; UwmError if one may not be written there."""
    if output.suffix != ".ipynb":
        raise UwmError(f"The output {output} is no notebook name: let it end in .ipynb.")
    failed = output.with_suffix(".failed.ipynb")
    for path in (output, failed):
        if os.path.exists(path) and path.samefile(source):
            raise UwmError(f"The output {path} is the notebook itself: give another --output.")
    given = [value for value in values.values() if isinstance(value, str) and os.path.isfile(value)]
    inputs = [Path(__file__).resolve().parents[1] / "notebooks", *given]
    targets = check_output(output, inputs=inputs), check_output(failed, inputs=inputs)
    if targets[1].exists() and not _is_failure(failed):
        raise UwmError(
            f"{failed} is not a notebook that failed here: move it away, or give another --output."
        )
    return targets


def _is_failure(path: Path) -> bool:
    """Whether a notebook is one that `run_notebook` kept of a failure, and may thus replace or remove."""
    try:
        return _read_notebook(path).metadata.papermill.exception is True
    except (UwmError, AttributeError):
        return False


def _refuse_bombs(path: str | os.PathLike, events: Iterable[Any]) -> None:
    """Refuse YAML of which a few lines stand for more than fits into memory, or take minutes to read."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        if kind == "AliasEvent":
            raise UwmError(f"{path} repeats a part by reference: write every value out.")
        depth += kind.endswith(("SequenceStartEvent", "MappingStartEvent"))
        depth -= kind.endswith(("SequenceEndEvent", "MappingEndEvent"))
        if depth > MAX_DEPTH:
            raise UwmError(f"{path} nests more than {MAX_DEPTH} levels: write one `name: value` to a line.")


def _prepared(node: NotebookNode, values: Mapping[str, Any], *, source: Path, target: Path) -> NotebookNode:
    """Return a copy of the notebook with its parameters set, as papermill prepares it."""
    papermill = _papermill()
    prepared = papermill.execute_notebook(
        node, None, parameters=dict(values), kernel_name=KERNEL, prepare_only=True
    )
    prepared.metadata.papermill |= {"input_path": str(source), "output_path": str(target)}
    return prepared


def _execute(node: NotebookNode, *, name: str, progress: bool) -> str:
    """Run a prepared notebook in place; return "", or where and why it stopped."""
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import raise_for_execution_errors

    try:
        papermill_engines.execute_notebook_with_engine(
            None, node, KERNEL, progress_bar=progress, log_output=False, config=_encrypted()
        )
        raise_for_execution_errors(node, None)
    except PapermillExecutionError as error:
        return f"cell {error.cell_index + 1} of {name} raised {error.ename}: {_one_line(error.evalue)}"
    # Not from a cell: the kernel died, of too little memory for instance, or did not start.
    except Exception as error:
        return f"{_last_cell(node)}{name} lost its kernel: {_one_line(error) or type(error).__name__}"
    return ""


def _last_cell(node: NotebookNode) -> str:
    """Mark the cell that a dead kernel was in as failed and name it; "" if none was begun."""
    node.metadata.papermill.exception = True
    begun = [i for i, cell in enumerate(node.cells) if cell.metadata.get("papermill", {}).get("start_time")]
    if not begun:
        return ""
    node.cells[begun[-1]].metadata.papermill |= {"exception": True, "status": "failed"}
    return f"cell {begun[-1] + 1} of "


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:1000]


def _encrypted():
    """Return the setting that has kernel and client talk encrypted where both can: ipykernel warns if not."""
    from traitlets.config import Config

    return Config({"KernelManager": {"transport_encryption": "auto"}})


def _names(notebooks: list[Path]) -> str:
    return ", ".join(path.stem for path in notebooks)


def _kind_of(default: str) -> str:
    try:
        return type(ast.literal_eval(default)).__name__
    except UNREADABLE:
        return "any"


def _typed(parameter: Parameter, value: Any) -> Any:
    convert = _from_text if isinstance(value, str) else _from_value
    name, kind = parameter.name, parameter.kind
    try:
        typed = convert(kind, value)
    except UNREADABLE as error:
        raise UwmError(
            f"The parameter {name!r} takes {kind}, not {shown(value)}: give such a value."
        ) from error
    try:
        json.dumps(typed, allow_nan=False, ensure_ascii=False).encode()
    except UNREADABLE as error:
        raise UwmError(
            f"The parameter {name!r} is {shown(value)}, which a notebook cannot hold: "
            "give finite numbers, Unicode text, or lists of these."
        ) from error
    return typed


def _from_text(kind: str, text: str) -> Any:
    """Return `text` as `kind`; ValueError if it is none."""
    if kind == "str":
        return text
    if kind in {"int", "float"}:
        return int(text) if kind == "int" else float(text)
    if kind == "bool":
        if text.lower() not in TRUTH:
            raise ValueError(text)
        return TRUTH[text.lower()]
    return _from_value(kind, ast.literal_eval(text))


def _from_value(kind: str, value: Any) -> Any:
    """Return a value read from YAML or a literal as `kind`; ValueError if it is of another type."""
    if kind == "float" and type(value) is int:
        return float(value)
    # "list[str]" is checked as a list: what is in it is the notebook's affair. bool is no int here.
    if kind not in {"any", type(value).__name__} and kind.split("[")[0] != type(value).__name__:
        raise ValueError(value)
    return value
