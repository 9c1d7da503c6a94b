"""The `uwm` command: run notebooks, train the mini models, score, edit and evaluate without writing Python.

Each command is a thin wrapper around public functions. Bad input, and a file that cannot be read or written,
ends in one line on stderr and exit code 2, a notebook that fails in exit code 1, a signal in 128 + its number.
What can be refused is refused before the work starts. Files are written before anything is printed, and a reader
of the output who leaves early stops nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import signal
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from uwmlib import runner
from uwmlib.errors import UwmError
from uwmlib.manifests import PACKAGE, manifest_path, manifests_dir
from uwmlib.options import known
from uwmlib.outputs import check_output
from uwmlib.parameters import check_run

if TYPE_CHECKING:
    from uwmlib.tuples import Tuples

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


class Stopped(SystemExit):
    """A signal asked to end: files are left as after any other error."""


def main() -> None:
    """Run the command line; a `UwmError` or an `OSError` becomes one line and exit code 2."""
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        _stop_at(name)
    try:
        _run_app()
    except UwmError as error:
        _fail(error, code=2)
    except OSError as error:
        _fail(UwmError(f"{error}: check that path, its permissions and the space on its disk."), code=2)
    except runner.NotebookFailed as error:
        _fail(error, code=1)
    except Stopped as stop:
        _fail(f"stopped by {signal.Signals(stop.code - 128).name}; nothing was written.", code=stop.code)


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
    notebooks: Annotated[
        Path | None, typer.Option(help="The folder of notebooks; that of this project's checkout by default.")
    ] = None,
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
    if file is not None and output is not None:
        check_output(output, inputs=[file])
    given: dict[str, Any] = runner.read_parameters(file) if file else {}
    given |= _pairs(parameter or [])
    print(f"Result: {runner.run_notebook(path, output=output, parameters=given)}")


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="The mini model to train.")],
    output: Annotated[Path, typer.Option(help="Folder for the weights.")] = Path("trained"),
    seed: Annotated[int, typer.Option(help="Seed of the data and of the initial weights.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Steps in place of the recipe's, for a trial.")] = None,
) -> None:
    """Train a mini model by its recipe: from nothing, or from the base that the recipe names."""
    from uwmlib import training

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
    check_run(tau=tau, alpha=alpha, n=n, seed=seed)
    kinds = {"text": _kind(text, "text"), "vision": _kind(vision, "vision")}
    if kinds == {"text": None, "vision": None}:
        raise UwmError("Both --text and --vision are none: name the layers of at least one encoder.")
    inputs = _inputs(model, weights, tuples)
    check_output(output, inputs=inputs)
    import uwmlib

    calibration = uwmlib.load_tuples(tuples, split="train", n=n, seed=seed)
    target = check_output(output, inputs=[*inputs, *_images(calibration)])
    vlm = uwmlib.load_model(model, weights=weights)
    uwmlib.score(vlm, calibration, **kinds).select(tau=tau, alpha=alpha).save(target)
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
    inputs = [*_inputs(model, weights, tuples), edit]
    if json_output is not None:
        check_output(json_output, inputs=inputs)
    import uwmlib
    from uwmlib.files import write_json

    change = uwmlib.WeightEdit.load(edit) if edit is not None else None
    test = uwmlib.load_tuples(tuples, split="test")
    if json_output is not None:
        json_output = check_output(json_output, inputs=[*inputs, *_images(test)])
    vlm = uwmlib.load_model(model, weights=weights)
    with change.applied(vlm) if change else nullcontext():
        evaluation = uwmlib.evaluate(vlm, test, progress=True)
    if json_output is not None:
        percent = evaluation.as_percent()
        intervals = {key: evaluation[key].interval for key in percent}
        facts = {"model": evaluation.model, "data": evaluation.data, "n": evaluation.safeground.n}
        write_json(json_output, facts | {"percent": percent, "interval": intervals})
    print(evaluation)


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


def _kind(name: str, encoder: str) -> str | None:
    """Return a kind of layers to score, or None for none of this encoder's."""
    from uwmlib.models.sites import KINDS

    return None if known(name, (*KINDS, "none"), f"kind of {encoder} layers") == "none" else name


def _inputs(model: str, weights: str | None, tuples: str) -> list[str | None]:
    """Return the files and folders that these may name; UwmError for a weights file that is not there."""
    if weights is not None and weights.endswith(".safetensors") and not os.path.isfile(weights):
        raise UwmError(f"There is no weights file {weights}: check the path.")
    folder = model.removeprefix("hf:").removeprefix("open_clip:local-dir:")
    return [folder, weights, tuples]


def _images(tuples: Tuples) -> Iterable[Path]:
    """Return the image files of tuples; none if they are drawn."""
    for images in (tuples.safe_images, tuples.unsafe_images):
        yield from getattr(images, "paths", ())


def _run_app() -> None:
    try:
        app(_joined(sys.argv[1:]))
    finally:
        # Now, and not when Python ends: a full disk behind `>` is then reported like any other.
        if sys.stdout is not None:
            sys.stdout.flush()


class _Patient:
    """A stream that goes quiet once its reader has left, so that the work and its files go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._silence(len(text))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._silence(0)

    def _silence(self, written: int) -> int:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        return written


def _patient(stream: TextIO | None) -> Any:
    """Return `stream` so that neither a reader who left nor a name that has no letters here ends the work."""
    if stream is None:
        return None
    stream.reconfigure(errors="backslashreplace")
    return _Patient(stream)


def _stop_at(name: str) -> None:
    """Have a signal raise `Stopped`, unless it is ignored (`nohup`) or unknown to this system."""
    number = getattr(signal, name, None)

    def stop(received: int, frame: Any) -> None:
        signal.signal(received, signal.SIG_DFL)
        raise Stopped(128 + received)

    if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, stop)


def _end_bars() -> None:
    """Close the progress bars that an error left open: a message begins a line of its own."""
    bars = sys.modules.get("tqdm.auto")
    for bar in list(getattr(bars and bars.tqdm, "_instances", ())):
        bar.close()


def _fail(error: Exception | str, *, code: int) -> None:
    _end_bars()
    print(f"uwm: {error}", file=sys.stderr)
    sys.exit(code)
