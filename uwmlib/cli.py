"""The `uwm` command: run notebooks, train the mini models, score, edit and evaluate without writing Python.

Each command is a thin wrapper around public functions. Bad input, and a file that cannot be read or written,
ends in one line on stderr and exit code 2, a notebook that fails in exit code 1, a signal in 128 + its number.
What can be refused is refused before the work starts. Files are written before anything is printed, and a reader
of the output who leaves early stops nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from uwmlib import listing, runner
from uwmlib.errors import UwmError, printable
from uwmlib.manifests import PACKAGE, manifests_dir
from uwmlib.options import known
from uwmlib.outputs import check_output
from uwmlib.parameters import check_run

if TYPE_CHECKING:
    from uwmlib.tuples import Tuples

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Safe vision-language models via Unsafe Weights Manipulation, step by step.",
)
LIBRARIES = ("uwm-book", "torch", "torchvision", "open_clip_torch", "transformers", "numpy", "safetensors")


def _model_names(incomplete: str) -> list[str]:
    """Complete the name of a mini model."""
    names = (str(row["model"]) for row in listing.models())
    return [name for name in names if name.startswith("mini-") and name.startswith(incomplete)]


def _notebook_names(incomplete: str) -> list[str]:
    """Complete the name of a notebook of this project's checkout."""
    try:
        names = [path.stem for path in runner.list_notebooks(runner.notebooks_dir())]
    except UwmError:
        names = []
    return [name for name in names if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        help="A name of `uwm ls models`, such as mini-CoCa, ViT-L-14/openai or hf:<folder or id>.",
        autocompletion=_model_names,
    ),
]
Weights = Annotated[str | None, typer.Option(help="File or pretrained tag; none for a mini model.")]
TuplesName = Annotated[
    str, typer.Option("--tuples", help="mini-visu, or a manifest of your own (.jsonl or .csv).")
]


class Listed(StrEnum):
    """What `uwm ls` lists."""

    MODELS = "models"
    SETS = "sets"
    METHODS = "methods"
    STUDIES = "studies"
    NOTEBOOKS = "notebooks"


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
    notebook: Annotated[
        str, typer.Argument(help="Number, name or path of the notebook.", autocompletion=_notebook_names)
    ],
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
    show: Annotated[bool, typer.Option("--list", help="List the parameters of the notebook.")] = False,
) -> None:
    """Run a notebook with checked parameters: uwm run 04 -p tau 0.05."""
    path = runner.find_notebook(notebook, runner.notebooks_dir(notebooks))
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
    name: Annotated[str, typer.Argument(help="The mini model to train.", autocompletion=_model_names)],
    output: Annotated[Path, typer.Option(help="Folder for the weights.")] = Path("trained"),
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the data and of the initial weights, in place of the recipe's."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in place of the recipe's, for a trial.")] = None,
) -> None:
    """Train a mini model by its recipe: from nothing, or from the base that the recipe names."""
    from uwmlib import training

    print(f"Result: {training.train(name, output=output, seed=seed, steps=steps)}")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study: `uwm ls studies` has all.")],
    model: Annotated[
        str, typer.Argument(help="The mini model to study, if it is of one.", autocompletion=_model_names)
    ] = "",
    output: Annotated[Path, typer.Option(help="Folder for the study.")] = Path("studies"),
) -> None:
    """Measure anew what chapters read from shipped files because it takes longer than they may."""
    from uwmlib.studies import make_study

    print(f"Result: {make_study(name, model, output=output)}")


@app.command()
def ls(
    what: Annotated[Listed, typer.Argument(help="What to list.")],
    folder: Annotated[
        Path | None, typer.Option(help="Your own folder of classification sets, or of notebooks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """List what can be named: models, sets, methods, studies or notebooks."""
    rows = _listed(what, folder)
    print(json.dumps(rows, indent=1, ensure_ascii=False) if as_json else _as_table(rows))


def _listed(what: Listed, folder: Path | None) -> list[listing.Row]:
    if what is Listed.NOTEBOOKS:
        folder = runner.notebooks_dir(folder)
        if not (rows := listing.notebooks(folder)):
            raise UwmError(f"There is no numbered notebook in {folder}: give another folder with --folder.")
        return rows
    if what is Listed.SETS:
        return listing.sets(folder)
    if folder is not None:
        raise UwmError(f"There is no folder of {what}: leave --folder out.")
    lists = {Listed.MODELS: listing.models, Listed.METHODS: listing.methods, Listed.STUDIES: listing.studies}
    return lists[what]()


@app.command()
def validate(
    manifest: Annotated[Path, typer.Argument(help="A manifest of your own (.jsonl or .csv).")],
    benign: Annotated[bool, typer.Option("--benign", help="It holds benign uses, not pairs.")] = False,
) -> None:
    """Check a manifest and its images to the end: every problem by row, or what it holds."""
    from uwmlib.tuples import validate as validate_manifest
    from uwmlib.tuples.loading import BENIGN, TUPLES

    columns = BENIGN if benign else TUPLES
    found = validate_manifest(manifest, benign=benign, progress=True)
    for problem in found.problems:
        print(printable(problem))
    if found.problems:
        print(f"{len(found.problems)} problems in {found.rows} rows.")
        raise typer.Exit(1)
    held: list[listing.Row] = [
        {"split": split or "(none)", columns.label: label or "(none)", columns.what: n}
        for split, labels in found.counts.items()
        for label, n in labels.items()
    ]
    print(_as_table(held))
    print(f"{printable(manifest)}: {found.rows} {columns.what}, no problem.")
    for note, n in found.notes.items():
        print(f"Note: {n} images have {note}.")


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
        table.add_row(f"profile {name}", f"{chosen.base_model} on {chosen.data or 'pairs of your own'}")
    table.add_row("shipped data", str(manifests_dir()))
    shipped = sorted(path.name for path in (PACKAGE / "weights").glob("*.safetensors"))
    table.add_row("shipped weights", ", ".join(shipped) or "none")
    Console(soft_wrap=True).print(table)


@app.command()
def edit(
    model: Model,
    output: Annotated[Path, typer.Option(help="The file of the edit.")] = Path("edit.safetensors"),
    method: Annotated[str, typer.Option(help="One of those that `uwm ls methods` lists.")] = "uwm",
    tau: Annotated[float | None, typer.Option(help="Share of each layer to edit.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Factor on what is selected.")] = None,
    variant: Annotated[str | None, typer.Option(help="One of the method's variants.")] = None,
    rule: Annotated[str | None, typer.Option(help="adaptive, fixed or positive.")] = None,
    prior: Annotated[
        bool | None, typer.Option("--prior/--no-prior", help="Whether scores of text are times |W|.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Kind of text layers: fc1, fc2, value, out or none.")
    ] = None,
    vision: Annotated[
        str | None, typer.Option(help="Kind of vision layers: fc1, fc2, value, out or none.")
    ] = None,
    tuples: TuplesName = "mini-visu",
    weights: Weights = None,
    n: Annotated[int, typer.Option(help="Calibration tuples; at most what there are.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the calibration sample and of a random choice.")] = 0,
) -> None:
    """Score a model on calibration tuples, edit its unsafe weights and save the edit.

    An option that is not given has the method's own default.
    """
    check_run(n=n, seed=seed)
    given = {
        "text": text, "vision": vision, "tau": tau, "alpha": alpha, "variant": variant, "rule": rule, "prior": prior,
    }  # fmt: skip
    options = _options(method, {name: value for name, value in given.items() if value is not None}, seed=seed)
    inputs = _inputs(model, weights, tuples)
    check_output(output, inputs=inputs)
    import uwmlib
    from uwmlib.methods import METHODS

    calibration = uwmlib.load_tuples(tuples, split="train", n=n, seed=seed, at_most=True)
    if len(calibration) < n:
        print(f"{tuples} has {len(calibration)} calibration tuples: all of them are used.", file=sys.stderr)
    target = check_output(output, inputs=[*inputs, *_images(calibration)])
    vlm = uwmlib.load_model(model, weights=weights)
    METHODS[method].edit(vlm, calibration, **options).save(target)
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


def _list_parameters(notebook: Path) -> None:
    declared = runner.declared_parameters(notebook).values()
    rows = [{"parameter": p.name, "type": p.kind, "default": p.default, "meaning": p.help} for p in declared]
    print(_as_table(rows))


def _as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as a table that is as wide as the terminal."""
    table = Table(*(rows[0] if rows else ()))
    for row in rows:
        table.add_row(*(escape(f"{value:,}" if isinstance(value, int) else value) for value in row.values()))
    console = Console()
    with console.capture() as drawn:
        console.print(table)
    return drawn.get().rstrip("\n")


def _options(method: str, given: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """Return the options of a method that were given, checked; a kind of layers "none" as None.

    The seed is the command's, for the calibration sample, so a method without one does not mind it.
    """
    from uwmlib.editing.selection import RULES
    from uwmlib.methods import METHODS
    from uwmlib.models.sites import KINDS

    chosen = METHODS[known(method, METHODS, "method")]
    takes = (*chosen.options, *(["variant"] if chosen.variants else []))
    for name in given:
        if name not in takes:
            raise UwmError(f"{method} has no {name}: leave that option out; it has {', '.join(takes)}.")
    check_run(**{name: given[name] for name in ("tau", "alpha") if name in given})
    choices = {
        "variant": (chosen.variants, f"variant of {method}"),
        "rule": (RULES, "selection rule"),
        "text": ((*KINDS, "none"), "kind of text layers"),
        "vision": ((*KINDS, "none"), "kind of vision layers"),
    }
    for name in given:
        if name in choices:
            known(given[name], *choices[name])
    if given.get("text") == given.get("vision") == "none":
        raise UwmError("Both --text and --vision are none: name the layers of at least one encoder.")
    own = {"seed": seed} if "seed" in chosen.options else {}
    return own | {name: None if value == "none" else value for name, value in given.items()}


def _inputs(model: str, weights: str | None, tuples: str) -> list[str | None]:
    """Return the files and folders that these may name; UwmError for a weights file that is not there."""
    if weights is not None and weights.endswith(".safetensors") and not os.path.isfile(weights):
        raise UwmError(f"There is no weights file {weights}: check the path.")
    folder = model.removeprefix("hf:").removeprefix("open_clip:").removeprefix("local-dir:")
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
        logging.disable()  # what asyncio says of tasks that died with the kernel would follow our last line
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
    text = printable(error) if isinstance(error, UwmError) else error
    print(f"uwm: {text}", file=sys.stderr)
    sys.exit(code)
