"""The `uwm` command as a reader runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_notebooks import as_checkout, stdout_of, write_notebook

from uwmlib import cli


def uwm(*arguments, cwd):
    command = [str(Path(sys.executable).with_name("uwm")), *map(str, arguments)]
    # Wide, so that rich does not wrap what is compared.
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    write_notebook(tmp_path / "notebooks" / "04_tiny.ipynb", "print(tau, n, name)\n1 / n")
    return as_checkout(tmp_path)


@pytest.fixture
def here(monkeypatch, capsys):
    """Run the command in this process, where torch is loaded; returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["uwm", *map(str, arguments)])
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdout", sys.stdout)
            streams.setattr(sys, "stderr", sys.stderr)
            streams.setattr(cli, "_stop_at", lambda name: None)
            with pytest.raises(SystemExit) as done:
                cli.main()
        return done.value.code or 0, *capsys.readouterr()

    return run


def test_run_with_parameters_from_the_line_and_from_a_file(folder):
    (folder / "params.yml").write_text("tau: 0.25\nn: 9\n")
    done = uwm("run", "04", "-f", "params.yml", "-p", "tau", "-0.5", "-p", "name", "a=b", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = folder / "_runs" / "04_tiny.ipynb"
    assert done.stdout == f"Result: {result}\n"
    assert done.stderr.splitlines()[0] == f"Running {folder}/notebooks/04_tiny.ipynb"
    assert stdout_of(result) == "-0.5 9 a=b\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["04", "-p", "tua", "0.5"], "There is no parameter 'tua': did you mean 'tau'?"),
        (["04", "-p", "tau", "abc"], "The parameter 'tau' takes float, not 'abc': give such a value."),
        (["04", "-p", "tau"], "The parameter 'tau' has no value: write -p NAME VALUE."),
        (["05"], "There is no notebook '05' in {folder}/notebooks: choose from 04_tiny."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, here, monkeypatch, arguments, sentence):
    monkeypatch.chdir(folder)
    assert here("run", *arguments) == (2, "", f"uwm: {sentence.format(folder=folder)}\n")
    assert not (folder / "_runs").exists()


def test_a_failing_notebook_is_exit_code_1_and_kept(folder):
    done = uwm("run", "04", "-p", "n", "0", "--output", "out.ipynb", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("uwm: cell 4 of 04_tiny.ipynb raised ZeroDivisionError")
    assert "Traceback" not in done.stderr.splitlines()[-1]
    assert (folder / "out.failed.ipynb").is_file()
    assert not (folder / "out.ipynb").exists()


def test_ls_names_notebooks_and_run_their_parameters(folder):
    (row,) = json.loads(uwm("ls", "notebooks", "--json", cwd=folder).stdout)
    assert row == {"notebook": "04_tiny", "title": "Tiny"}
    shown = uwm("run", "4", "--list", cwd=folder).stdout
    assert [line.split()[1] for line in shown.splitlines() if "float" in line] == ["tau"]
    assert "list[int]" in shown
    assert "share of the mass" in shown


def test_info_shows_versions_and_places(folder):
    shown = uwm("info", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert torch.__version__ in shown.stdout
    assert "data_manifests" in shown.stdout


def test_ls_lists_what_the_functions_take(tmp_path, here):
    import uwmlib
    from uwmlib.editing import gradients, saliency

    def listed(what, *options):
        code, out, err = here("ls", what, "--json", *options)
        assert code == 0, err
        return json.loads(out)

    models = [row["model"] for row in listed("models")]
    assert uwmlib.load_model(models[0]).name == models[0] and "hf:<folder or id>" in models
    sets = [(row["set"], row["n"]) for row in listed("sets")]
    assert sets[:3] == [("mini-visu", 11_000), ("mini-visu", 2_000), ("mini-visu-1", 11_000)]
    assert len(sets) == 3 + 17 and ("dtd", 18_800) in sets
    studies = {row["study"]: row["of"] for row in listed("studies")}
    assert studies["table1"] == "a base that has a Safe-CLIP" and studies["scores"] == "any mini model"
    methods = {row["method"]: row["variants"].split(", ") for row in listed("methods")}
    assert methods["uwm"] == list(saliency.VARIANTS)
    assert all(methods[loss] == list(gradients.VARIANTS) for loss in gradients.LOSSES)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "birds.csv").write_text("image,label\na.png,owl\na.png,hen\n")
    own = listed("sets", "--folder", tmp_path)
    assert own[3:] == [{"set": "birds", "n": 2, "what": "own images, birds.csv"}]
    table = uwm("ls", "models", cwd=tmp_path).stdout
    assert all(model in table for model in models)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ls", "models", "--folder", "."], "There is no folder of models"),
        (["ls", "notebooks", "--folder", "."], "There is no numbered notebook in ."),
        (["ls", "sets", "--folder", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_what_cannot_be_listed_is_one_line(tmp_path, monkeypatch, here, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = here(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"uwm: {words}")


def test_validate_says_all_that_is_wrong_or_what_is_there(own_pairs, monkeypatch, here):
    monkeypatch.chdir(own_pairs)
    code, out, err = here("validate", "pairs.jsonl")
    assert code == 0, err
    assert out.splitlines()[-1] == "pairs.jsonl: 6 tuples, no problem." and "(none)" in out
    rows = (own_pairs / "pairs.jsonl").read_text().splitlines()
    (own_pairs / "pairs.jsonl").write_text("\n".join([*rows, "{", rows[0]]))
    (own_pairs / "unsafe_image2.png").unlink()
    broken = uwm("validate", "pairs.jsonl", cwd=own_pairs)
    assert broken.returncode == 1
    missing, no_json, twice, count = broken.stdout.splitlines()
    assert missing.startswith("unsafe_image in row 3 of pairs.jsonl does not exist")
    assert no_json.startswith("Row 7 of pairs.jsonl is not JSON")
    assert twice.startswith("Row 8 of pairs.jsonl repeats row 1")
    assert count == "3 problems in 8 rows."
    assert here("validate", "no.jsonl") == (2, "", "uwm: There is no manifest no.jsonl: check the path.\n")


def test_validate_reads_benign_uses_where_it_is_told_to(tmp_path, monkeypatch, here):
    forms = ("harmless", "unsafe", "clean")
    for i, form in enumerate(forms):
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / f"{form}.png")
    row = {f"{form}_image": f"{form}.png" for form in forms} | {f"{form}_text": form for form in forms}
    (tmp_path / "uses.jsonl").write_text(json.dumps(row | {"marked": True}))
    monkeypatch.chdir(tmp_path)
    code, out, err = here("validate", "uses.jsonl", "--benign")
    assert code == 0, err
    assert out.splitlines()[-1] == "uses.jsonl: 1 benign uses, no problem."
    assert "marked" in out and "true" in out and "concept" not in out
    (tmp_path / "clean.png").unlink()
    code, out, _ = here("validate", "uses.jsonl", "--benign")
    assert code == 1 and out.startswith("clean_image in row 1 of uses.jsonl does not exist")
    code, out, _ = here("validate", "uses.jsonl")
    assert code == 1 and "lacks safe_image" in out


def test_the_shell_completes_commands_and_names(folder):
    """In a real bash: the script that the command prints, and what it then offers."""
    script = """
        script=$(uwm --show-completion); eval "$script"; complete -p uwm
        offer() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _uwm_completion uwm; echo "${COMPREPLY[@]}"
        }
        offer uwm va; offer uwm ls me; offer uwm train mini-L; offer uwm run 0
    """
    bin = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "complete -o default -F _uwm_completion uwm", "validate", "methods", "mini-LLaVA mini-LLaVA-Safe-CLIP",
        "04_tiny",
    ], done.stderr  # fmt: skip


@pytest.fixture
def own_pairs(tmp_path):
    """A manifest of six tuples of noise, and the weights of an untrained mini model."""
    from uwmlib.models.mini_architectures import bare_model

    rng = np.random.default_rng(0)
    lines = []
    for row in range(6):
        record = {"safe_text": f"a red circle {row}", "unsafe_text": "a blue square"}
        for side in ("safe_image", "unsafe_image"):
            record[side] = f"{side}{row}.png"
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(tmp_path / record[side])
        lines.append(json.dumps(record))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    weights = {
        name: tensor.contiguous() for name, tensor in bare_model("mini-ViT-L-14", seed=3).state_dict().items()
    }
    save_file(weights, tmp_path / "mini.safetensors")
    return tmp_path


def test_edit_and_evaluate_do_what_the_functions_do(own_pairs):
    import uwmlib

    common = ["mini-ViT-L-14", "--weights", "mini.safetensors", "--tuples", "pairs.jsonl"]
    edited = uwm("edit", *common, "--tau", "0.3", "--text", "none", cwd=own_pairs)
    assert edited.returncode == 0, edited.stderr
    assert "pairs.jsonl has 6 calibration tuples: all of them are used." in edited.stderr.splitlines()
    assert edited.stdout == "Result: edit.safetensors\n"
    measured = uwm("evaluate", *common, "--edit", "edit.safetensors", "--json", "out.json", cwd=own_pairs)
    assert measured.returncode == 0, measured.stderr
    vlm = uwmlib.load_model("mini-ViT-L-14", weights=own_pairs / "mini.safetensors")
    tuples = uwmlib.load_tuples(own_pairs / "pairs.jsonl")
    scores = uwmlib.score(vlm, tuples, text=None, vision="fc2", progress=False)
    edit = scores.select(tau=0.3)
    assert edit.share()["vision"] > 0
    with edit.applied(vlm):
        expected = uwmlib.evaluate(vlm, tuples)
    assert measured.stdout == f"{expected}\n"
    record = json.loads((own_pairs / "out.json").read_text())
    assert record["percent"] == pytest.approx(expected.as_percent())
    assert (record["data"], record["n"]) == ("pairs.jsonl", 6)


EDIT = ["edit", "mini-ViT-L-14", "--weights", "mini.safetensors", "--tuples", "pairs.jsonl", "--n", "6"]


@pytest.mark.parametrize(
    ("arguments", "method", "options", "chosen"),
    [
        (["--variant", "paper", "--rule", "fixed", "--no-prior", "--alpha", "0"], "uwm", {},
         {"tau": 0.02, "variant": "paper", "rule": "fixed", "prior": (), "alpha": 0}),
        (["--prior", "--rule", "positive", "--variant", "difference"], "uwm", {},
         {"tau": 0.02, "variant": "difference", "rule": "positive"}),
        (["--method", "g-unsafe", "--variant", "paper"], "g-unsafe", {"variant": "paper"}, {}),
        (["--method", "g-safe-clip", "--tau", "0.3", "--rule", "adaptive"], "g-safe-clip", {},
         {"tau": 0.3, "rule": "adaptive"}),
    ],
)  # fmt: skip
def test_edit_takes_the_options_of_every_method(
    own_pairs, here, monkeypatch, arguments, method, options, chosen
):
    import uwmlib

    monkeypatch.chdir(own_pairs)
    code, _, err = here(*EDIT, "--text", "fc2", "--vision", "out", *arguments)
    assert code == 0, err
    found = uwmlib.WeightEdit.load(own_pairs / "edit.safetensors")
    vlm = uwmlib.load_model("mini-ViT-L-14", weights=own_pairs / "mini.safetensors")
    tuples = uwmlib.load_tuples(own_pairs / "pairs.jsonl", split="train", n=6, seed=0)
    kinds = {"text": "fc2", "vision": "out", "progress": False}
    if method == "uwm":
        scores = uwmlib.score(vlm, tuples, **kinds)
    else:
        scores = uwmlib.gradient_scores(vlm, tuples, loss=method, **kinds, **options)
    expected = scores.select(**chosen)
    assert found.description == expected.description
    assert found.description["method"] == method
    assert {
        name: vars(change) | {"indices": change.indices.tolist()} for name, change in found.changes.items()
    } == {
        name: vars(change) | {"indices": change.indices.tolist()} for name, change in expected.changes.items()
    }


def test_a_random_edit_takes_the_seed_of_the_command(own_pairs, here, monkeypatch):
    import uwmlib
    from uwmlib.editing import select_random

    monkeypatch.chdir(own_pairs)
    code, _, err = here(*EDIT, "--method", "random", "--tau", "0.3", "--seed", "5")
    assert code == 0, err
    found = uwmlib.WeightEdit.load(own_pairs / "edit.safetensors")
    vlm = uwmlib.load_model("mini-ViT-L-14", weights=own_pairs / "mini.safetensors")
    expected = select_random(vlm, tau=0.3, seed=5)
    assert found.description == expected.description and found.description["seed"] == 5
    assert all(
        change.indices.tolist() == expected.changes[name].indices.tolist()
        for name, change in found.changes.items()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edit", "mini-ViT-L-14", "--output", "taken"], "The output taken is no file but a folder"),
        (["train", "mini-ViT-L-14", "--output", "file"], "cannot be written in"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, arguments, words):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("mine")
    done = uwm(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    # One line: no progress bar has begun.
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("uwm: ") and words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]
    assert (tmp_path / "file").read_text() == "mine"


EVALUATE = ["evaluate", "mini-ViT-L-14", "--weights", "mini.safetensors", "--tuples", "pairs.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*EDIT, "--output", "file/edit.safetensors"], "cannot be written in"),
        ([*EDIT, "--output", "x" * 300], "File name too long"),
        ([*EDIT, "--output", "mini.safetensors"], "replace what is read from mini.safetensors"),
        ([*EDIT, "--output", "soft"], "replace what is read from mini.safetensors"),
        ([*EDIT, "--output", "hard"], "replace what is read from pairs.jsonl"),
        ([*EDIT, "--output", "unsafe_image2.png"], "replace what is read from .*unsafe_image2.png"),
        ([*EDIT, "--tau", "nan"], "tau is nan"),
        ([*EDIT, "--tau", "1"], "tau is 1.0"),
        ([*EDIT, "--alpha", "inf"], "alpha is inf"),
        ([*EDIT, "--seed", "-1"], "seed is -1"),
        ([*EDIT, "--seed", str(2**64)], f"seed is {2**64}"),
        ([*EDIT, "--n", "0"], "n is 0"),
        ([*EDIT, "--method", "g-unsave"], "no method 'g-unsave': did you mean 'g-unsafe'"),
        ([*EDIT, "--method", "g-unsafe", "--tau", "0"], "tau is 0.0"),
        ([*EDIT, "--method", "g-unsafe", "--no-prior"], "g-unsafe has no prior"),
        ([*EDIT, "--method", "g-unsafe", "--variant", "difference"], "no variant of g-unsafe 'difference'"),
        ([*EDIT, "--variant", "printed"], "no variant of uwm 'printed'"),
        ([*EDIT, "--rule", "adaptve"], "no selection rule 'adaptve': did you mean 'adaptive'"),
        ([*EDIT, "--vision", "fc3"], "no kind of vision layers 'fc3'"),
        ([*EDIT, "--text", "none", "--vision", "none"], "Both --text and --vision are none"),
        ([*EDIT, "--weights", "no.safetensors"], "no weights file no.safetensors"),
        ([*EDIT, "--tuples", "no.jsonl"], "no.jsonl"),
        ([*EVALUATE, "--json", "pairs.jsonl"], "replace what is read from pairs.jsonl"),
        ([*EVALUATE, "--json", "safe_image0.png"], "replace what is read from .*safe_image0.png"),
        ([*EVALUATE, "--edit", "file", "--json", "file"], "replace what is read from file"),
        ([*EVALUATE, "--edit", "mini.safetensors"], "not 'weight-edit'"),
        ([*EVALUATE, "--edit", "no.safetensors"], "no.safetensors"),
        (["train", "mini-ViT-L-14", "--steps", "0"], "at least one step"),
        (["train", "mini-ViT-L-14", "--seed", str(2**63)], f"seed is {2**63}"),
        (["train", "mini-LLaVA", "--output", "taken"], "read-only"),
        (["study", "a game", "mini-CoCa"], "equal-knowledge"),
        (["study", "table1", "mini-CoCa"], "no Safe-CLIP of 'mini-CoCa'"),
        (["study", "equal-knowledge", "mini-CoCa", "--output", "file"], "cannot be written in"),
        (["run", "x.ipynb", "-f", "p.ipynb", "--output", "p.ipynb"], "replace what is read from p.ipynb"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_model_is_loaded(
    own_pairs, monkeypatch, here, arguments, words
):
    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.chdir(own_pairs)
    monkeypatch.setattr("uwmlib.load_model", load)
    monkeypatch.setattr("uwmlib.training.recipes.bare_model", load)
    (own_pairs / "file").write_text("mine")
    (own_pairs / "soft").symlink_to("mini.safetensors")
    (own_pairs / "hard").hardlink_to("pairs.jsonl")
    write_notebook(own_pairs / "x.ipynb")
    (own_pairs / "p.ipynb").write_text("n: 3\n")
    (own_pairs / "taken" / "mini-LLaVA").mkdir(parents=True)
    (own_pairs / "taken" / "mini-LLaVA" / "model.safetensors").touch(mode=0o444)
    before = {path: path.read_bytes() for path in own_pairs.rglob("*") if path.is_file()}
    code, out, err = here(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert re.match(f"uwm: .*{words}", err)
    assert {path: path.read_bytes() for path in own_pairs.rglob("*") if path.is_file()} == before


def test_a_link_as_output_stays_a_link(own_pairs, monkeypatch, here):
    monkeypatch.chdir(own_pairs)
    (own_pairs / "latest.json").symlink_to("results.json")
    code, out, _ = here(*EVALUATE, "--json", "latest.json")
    assert code == 0 and out
    assert os.readlink(own_pairs / "latest.json") == "results.json"
    assert json.loads((own_pairs / "results.json").read_text())["n"] == 6


def test_a_reader_who_leaves_stops_nothing(own_pairs):
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(Path(sys.executable).with_name("uwm")), *EVALUATE, "--json", "out.json"]
    with os.fdopen(writing, "w") as nobody:
        # Both streams: a progress bar that nobody sees is no reason to stop either.
        assert subprocess.run(command, cwd=own_pairs, stdout=nobody, stderr=nobody).returncode == 0
    assert json.loads((own_pairs / "out.json").read_text())["n"] == 6


def test_what_cannot_be_printed_is_said_after_the_files_are_written(own_pairs):
    command = [str(Path(sys.executable).with_name("uwm")), *EVALUATE, "--json", "out.json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=own_pairs, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("uwm: [Errno 28] No space left")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert json.loads((own_pairs / "out.json").read_text())["n"] == 6


@pytest.fixture
def hangs_up():
    """Let SIGHUP end what is started here, even where `nohup` has these tests ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_signal_leaves_what_was_there(tmp_path, hangs_up):
    code = "open(name, 'w').close()\nimport time\ntime.sleep(120)"
    notebook = write_notebook(tmp_path / "04_tiny.ipynb", code)
    command = [str(Path(sys.executable).with_name("uwm")), "run", str(notebook), "--output"]
    codes = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    runs = {}
    for number in codes:
        (tmp_path / f"{number}.ipynb").write_text("an earlier result")
        arguments = [*command, f"{number}.ipynb", "-p", "name", f"{number}.begun"]
        runs[number] = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for number, run in runs.items():
        while not (tmp_path / f"{number}.begun").exists():
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(number)
        err = run.communicate()[1]
        assert run.returncode == codes[number]
        if number != signal.SIGKILL:
            assert err.splitlines()[-1] == f"uwm: stopped by {number.name}; nothing was written."
        assert (tmp_path / f"{number}.ipynb").read_text() == "an earlier result"
    left = {path.name for path in tmp_path.iterdir()} - {
        f"{n}.{end}" for n in codes for end in ("ipynb", "begun")
    }
    assert left == {"04_tiny.ipynb"}


def test_a_message_begins_a_line_of_its_own_behind_a_bar(here, monkeypatch, own_pairs):
    from tqdm.auto import tqdm

    import uwmlib

    def fail(*_, **__):
        bar = tqdm(total=10)
        bar.update(3)
        fail.bar = bar  # kept alive, as a traceback keeps it
        raise uwmlib.UwmError("no such thing.")

    monkeypatch.chdir(own_pairs)
    monkeypatch.setattr("uwmlib.evaluate", fail)
    code, _, err = here(*EVALUATE)
    assert code == 2
    assert "30%" in err and err.endswith("\nuwm: no such thing.\n")
