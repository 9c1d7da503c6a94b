"""Run a notebook of the book with checked parameters, and leave either a whole result or none.

papermill does the running. Two of its habits are too lenient for a result that is to be quoted: a misspelt
parameter is only warned about (the default is used), and any text is taken for a number. Both are refused
here before a kernel starts. Cells run in the caller's working directory, so a relative path in a parameter
means what it means in the shell; the notebooks themselves read nothing by relative path.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uwmlib.errors import UwmError

KERNEL = "python3"
RUNS = "_runs"
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class NotebookFailed(RuntimeError):
    """A cell of the notebook raised: the message says which, and where the notebook is kept."""


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
    """Return the folder of notebooks: the one given, else ./notebooks, else that of uwmlib's checkout."""
    if folder is not None:
        if not Path(folder).is_dir():
            raise UwmError(f"There is no folder {folder}: give the folder of notebooks with --notebooks.")
        return Path(folder)
    candidates = (Path.cwd() / "notebooks", Path(__file__).resolve().parents[1] / "notebooks")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise UwmError("No notebooks folder was found here: run in a checkout of uwm-book, or give --notebooks.")


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
    from nbformat import ValidationError

    try:
        entries = papermill.inspect_notebook(str(notebook))
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise UwmError(
            f"{notebook} is no readable Python notebook ({error}): save it from Jupyter."
        ) from error
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
        If a name is not declared (the nearest declared one is named) or a value does not fit its type.
    """
    for name in given:
        if name not in declared:
            raise UwmError(_unknown(name, declared))
    return {name: _typed(declared[name], value) for name, value in given.items()}


def read_parameters(path: str | os.PathLike) -> dict[str, Any]:
    """Return the flat mapping of parameter names to values that a YAML file holds."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UwmError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UwmError(f"{path} is not a YAML file: write one `name: value` to a line.") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UwmError(f"{path} holds no mapping of names to values: write one `name: value` to a line.")
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
        is written aside and renamed, so an earlier result stays until a new one is whole.
    parameters : mapping, optional
        See `check_parameters`.
    progress : bool
        Show a bar that counts the cells, on stderr.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    UwmError
        If a parameter is refused, `output` is a folder or the notebook itself, or the kernel is another Python.
    NotebookFailed
        If a cell raises. The notebook up to there is kept as `<output without .ipynb>.failed.ipynb`.
    """
    papermill = _papermill()
    source = Path(notebook)
    target = Path(output) if output is not None else Path.cwd() / RUNS / source.name
    if target.suffix != ".ipynb":
        raise UwmError(f"The output {target} is no notebook name: let it end in .ipynb.")
    if target.exists() and not target.is_file():
        raise UwmError(f"The output {target} is no file but a folder or a device: give the name of a file.")
    if target.exists() and target.samefile(source):
        raise UwmError(f"The output {target} is the notebook itself: give another --output.")
    values = check_parameters(parameters or {}, declared_parameters(source))
    check_kernel()
    # Imported here because it loads torch: a refusal need not wait for that.
    from uwmlib.files import atomic_path

    failed = target.with_suffix(".failed.ipynb")
    with atomic_path(target) as temporary:
        try:
            papermill.execute_notebook(
                str(source),
                str(temporary),
                parameters=values,
                kernel_name=KERNEL,
                progress_bar=progress,
                config=_encrypted(),
            )
        except papermill.PapermillExecutionError as error:
            temporary.replace(failed)
            place = f"cell {error.cell_index + 1} of {source.name} raised {error.ename}: {error.evalue}"
            raise NotebookFailed(f"{place}; the notebook so far is in {failed}.") from error
    # A success leaves no word of an earlier failure behind.
    failed.unlink(missing_ok=True)
    return target


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


def _encrypted():
    """Return the setting that has kernel and client talk encrypted where both can: ipykernel warns if not."""
    from traitlets.config import Config

    return Config({"KernelManager": {"transport_encryption": "auto"}})


def _names(notebooks: list[Path]) -> str:
    return ", ".join(path.stem for path in notebooks)


def _kind_of(default: str) -> str:
    try:
        return type(ast.literal_eval(default)).__name__
    except (ValueError, SyntaxError):
        return "any"


def _unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    if not declared:
        return f"There is no parameter {name!r}: this notebook declares none."
    near = difflib.get_close_matches(name, declared, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(declared)}."
    return f"There is no parameter {name!r} in this notebook: {hint}"


def _typed(parameter: Parameter, value: Any) -> Any:
    convert = _from_text if isinstance(value, str) else _from_value
    try:
        return convert(parameter.kind, value)
    except ValueError as error:
        raise UwmError(
            f"The parameter {parameter.name!r} takes {parameter.kind}, not {value!r}: give such a value."
        ) from error


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
    try:
        value = ast.literal_eval(text)
    except SyntaxError as error:
        raise ValueError(text) from error
    return _from_value(kind, value)


def _from_value(kind: str, value: Any) -> Any:
    """Return a value read from YAML or a literal as `kind`; ValueError if it is of another type."""
    if kind == "float" and type(value) is int:
        return float(value)
    # "list[str]" is checked as a list: what is in it is the notebook's affair. bool is no int here.
    if kind not in {"any", type(value).__name__} and kind.split("[")[0] != type(value).__name__:
        raise ValueError(value)
    return value
