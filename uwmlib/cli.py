"""The `uwm` command: run notebooks, train the mini models, score, edit and evaluate without writing Python.

Each command is a thin wrapper around public functions. Bad input, and a file that cannot be read or written,
ends in one line on stderr and exit code 2, a notebook that fails in exit code 1. What can be refused is refused
before the work starts.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from uwmlib import runner
from uwmlib.errors import UwmError
from uwmlib.manifests import PACKAGE, manifest_path, manifests_dir

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Safe vision-language models via Unsafe Weights Manipulation, step by step.",
)
LIBRARIES = ("uwm-book", "torch", "torchvision", "open_clip_torch", "transformers", "numpy", "safetensors")
Model = Annotated[str, typer.Argument(help="mini-..., open_clip:<architecture> or hf:<folder or id>.")]
Weights = Annotated[str | None, typer.Option(help="File or pretrained tag; none for a mini model.")]
TuplesName = Annotated[str, typer.Option("--tuples", help="mini-visu, or a manifest of your own (.jsonl).")]


def main() -> None:
    """Run the command line; a `UwmError` or an `OSError` becomes one line and exit code 2."""
    try:
        app(_joined(sys.argv[1:]))
    except UwmError as error:
        _fail(error, code=2)
    except OSError as error:
        _fail(UwmError(f"{error}: check that path, its permissions and the space on its disk."), code=2)
    except runner.NotebookFailed as error:
        _fail(error, code=1)


@app.command()
def run(
    notebook: Annotated[str | None, typer.Argument(help="Number, name or path of the notebook.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Set a parameter.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="YAML file of parameters; -p wins.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write; _runs/<name>.ipynb by default.")
    ] = None,
    notebooks: Annotated[Path | None, typer.Option(help="The folder of notebooks.")] = None,
    show: Annotated[bool, typer.Option("--list", help="List notebooks, or one's parameters.")] = False,
) -> None:
    """Run a notebook with checked parameters: uwm run 04 -p tau 0.05."""
    folder = runner.notebooks_dir(notebooks)
    if notebook is None:
        _list_notebooks(folder)
        return
    path = runner.find_notebook(notebook, folder)
    if show:
        _list_parameters(path)
        return
    given: dict[str, Any] = runner.read_parameters(file) if file else {}
    given |= _pairs(parameter or [])
    print(f"Result: {runner.run_notebook(path, output=output, parameters=given)}")


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="The mini model to train.")],
    output: Annotated[Path, typer.Option(help="Folder for the weights.")] = Path("trained"),
    seed: Annotated[int, typer.Option(help="Seed of the data and of the initial weights.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Fewer steps than the recipe's, for a trial.")] = None,
) -> None:
    """Train a mini model from nothing."""
    from uwmlib import training

    _check_output(output / f"{name}.safetensors")
    print(f"Result: {training.train(name, output=output, seed=seed, steps=steps)}")


@app.command()
def models() -> None:
    """List the models that can be named."""
    table = Table("model", "weights")
    for name, entry in json.loads(manifest_path("models.json").read_text(encoding="utf-8")).items():
        made_of = entry.get("file") or f"{entry['base']} with the vision tower of {entry['vision']}"
        table.add_row(name, f"ships with the library ({made_of})")
    table.add_row("open_clip:<architecture>", "--weights FILE, or a pretrained tag of open_clip")
    table.add_row("hf:<folder or id>", "the checkpoint of that folder or id")
    Console().print(table)


@app.command()
def cache(
    folder: Annotated[str, typer.Option(help="The cache's folder; the default one if empty.")] = "",
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is kept there.")] = False,
) -> None:
    """Show where results are kept, and how much; they are never stale, and can be removed at any time."""
    from uwmlib.cache import Cache

    kept = Cache(folder)
    n, size = kept.size()
    if clear:
        kept.clear()
    print(f"{kept.folder}: {n} results, {size / 2**20:.1f} MiB{', removed' if clear else ''}")


@app.command()
def info() -> None:
    """Show versions, the two profiles, and where data and weights are."""
    import torch

    from uwmlib.profiles import PROFILES

    table = Table("what", "value", show_header=False)
    table.add_row("python", f"{platform.python_version()} ({sys.executable})")
    for library in LIBRARIES:
        table.add_row(library, importlib.metadata.version(library))
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    table.add_row("threads, GPU", f"{torch.get_num_threads()}, {cuda}")
    for name, chosen in PROFILES.items():
        table.add_row(f"profile {name}", f"{chosen.base} on {chosen.data or 'pairs of your own'}")
    table.add_row("manifests", str(manifests_dir()))
    shipped = sorted(path.name for path in (PACKAGE / "weights").glob("*.safetensors"))
    table.add_row("shipped weights", ", ".join(shipped) or "none")
    Console(soft_wrap=True).print(table)


@app.command()
def edit(
    model: Model,
    output: Annotated[Path, typer.Option(help="The file of the edit.")] = Path("edit.safetensors"),
    tau: Annotated[float, typer.Option(help="Share of a layer's score mass to edit.")] = 0.02,
    alpha: Annotated[float, typer.Option(help="Factor on the selected weights.")] = -1.0,
    text: Annotated[str, typer.Option(help="Kind of text layers: fc1, fc2, value, out or none.")] = "out",
    vision: Annotated[str, typer.Option(help="Kind of vision layers: fc1, fc2, value, out or none.")] = "fc2",
    tuples: TuplesName = "mini-visu",
    weights: Weights = None,
    n: Annotated[int, typer.Option(help="Calibration tuples.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the calibration sample.")] = 0,
) -> None:
    """Score a model on calibration tuples, select its unsafe weights and save the edit."""
    import uwmlib
    from uwmlib.editing.selection import check_tau
    from uwmlib.editing.weight_edit import check_alpha

    check_tau(tau)
    check_alpha(alpha)
    _check_output(output)
    vlm = uwmlib.load_model(model, weights=weights)
    calibration = uwmlib.load_tuples(tuples, split="train", n=n, seed=seed)
    scores = uwmlib.score(vlm, calibration, text=_kind(text), vision=_kind(vision))
    scores.select(tau=tau, alpha=alpha).save(output)
    print(f"Result: {output}")


@app.command()
def evaluate(
    model: Model,
    tuples: TuplesName = "mini-visu",
    weights: Weights = None,
    edit: Annotated[Path | None, typer.Option(help="An edit file to apply first.")] = None,
    json_output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures as JSON.")
    ] = None,
) -> None:
    """Measure SafeGround and retrieval on the test tuples."""
    import uwmlib

    if json_output is not None:
        _check_output(json_output)
    vlm = uwmlib.load_model(model, weights=weights)
    edited = uwmlib.WeightEdit.load(edit).applied(vlm) if edit is not None else nullcontext()
    with edited:
        evaluation = uwmlib.evaluate(vlm, uwmlib.load_tuples(tuples, split="test"), progress=True)
    print(evaluation)
    if json_output is not None:
        from uwmlib.files import write_json

        percent = evaluation.as_percent()
        intervals = {key: evaluation.interval(key) for key in percent}
        facts = {"model": evaluation.model, "data": evaluation.data, "n": evaluation.safeground.n}
        write_json(json_output, facts | {"percent": percent, "interval": intervals})


def _joined(arguments: list[str]) -> list[str]:
    """Join each `-p NAME VALUE` into `-p NAME=VALUE`: typer has no repeated option of two values."""
    rest, joined = list(arguments), []
    while rest:
        joined.append(rest.pop(0))
        wants_pair = joined[-1] in {"-p", "--parameter"} and len(rest) >= 2 and "=" not in rest[0]
        # A value may start with one dash, as -0.5 does; two dashes start the next option.
        if wants_pair and not rest[1].startswith("--"):
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def _pairs(assignments: list[str]) -> dict[str, str]:
    """Return {NAME: VALUE} from texts NAME=VALUE; the last one wins."""
    for assignment in assignments:
        if "=" not in assignment:
            raise UwmError(f"The parameter {assignment!r} has no value: write -p NAME VALUE.")
    return dict(assignment.split("=", maxsplit=1) for assignment in assignments)


def _list_notebooks(folder: Path) -> None:
    paths = runner.list_notebooks(folder)
    for path in paths:
        print(path.stem)
    if not paths:
        raise UwmError(f"There is no numbered notebook in {folder}: give another folder with --notebooks.")


def _list_parameters(notebook: Path) -> None:
    table = Table("parameter", "type", "default", "meaning")
    for parameter in runner.declared_parameters(notebook).values():
        table.add_row(*(escape(part) for part in dataclasses.astuple(parameter)))
    Console().print(table)


def _check_output(path: Path) -> None:
    """Refuse a file that could not be written once the work is done."""
    if path.exists() and not path.is_file():
        raise UwmError(f"The output {path} is no file but a folder or a device: give the name of a file.")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UwmError(f"The output {path} cannot be written in {nearest}: give a path in a folder of yours.")


def _fail(error: Exception, *, code: int) -> None:
    print(f"uwm: {error}", file=sys.stderr)
    sys.exit(code)


def _kind(name: str) -> str | None:
    return None if name == "none" else name
