"""Every chapter with profile=paper, on a user's own models, pairs, sets and recorded judges, without a network."""

from __future__ import annotations

import json
import os

import nbformat
import pytest
from paper_world import UNSAFE, block_network, write_models, write_pairs, write_sets

import uwmlib as uwm
from uwmlib.captions import write_record
from uwmlib.manifests import manifests_dir
from uwmlib.profiles import Source
from uwmlib.runner import declared_parameters, run_notebook

pytestmark = pytest.mark.own
NOTEBOOKS = sorted((manifests_dir().parent / "notebooks").glob("*.ipynb"))
SETTINGS = {"tau": 0.085, "strong_tau": 0.2, "max_new_tokens": 5, "taus": "0.02 0.1", "alpha_steps": 3}
N = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What a user has on disk, as the parameters that name it."""
    folder = tmp_path_factory.mktemp("paper")
    models = write_models(folder / "models")
    data = write_pairs(folder / "pairs", n=N)
    write_sets(folder / "sets")
    safe = models["safe-clip"].removeprefix("hf:")
    own = {"profile": "paper", "data": str(data), "zero_shot": str(folder / "sets"), "layer": "vision.1.fc2"}
    own |= {"base_model": models["clip"], "safe_model": models["clip"], "safe_weights": safe}
    kinds = {
        "ViT-L14": "clip",
        "ViT-B16": "open-clip",
        "ViT-B32": "safe-clip",
        "CoCa": "coca",
        "SigLIP": "siglip",
    }
    rows = [f"{row}={models[name]}" for row, name in kinds.items()] + [f"Safe-CLIP={models['clip']}|{safe}"]
    own["architectures"] = "; ".join(rows)
    own["llavas"] = f"LLaVA={models['llava']}; LLaVA+Safe-CLIP={models['llava']}||{models['tower']}"
    own |= record_judges(folder, models, data) | SETTINGS
    return own | {"cache_dir": str(folder / "cache"), "results_dir": str(folder / "results")}


def record_judges(folder, models, data):
    """Caption as chapter 9 does, and record what a judge and a toxicity scorer might have said of each caption."""
    tuples = uwm.load_tuples(data)
    captions = set()
    for vision_weights in ("", models["tower"]):
        llava = Source(models["llava"], "", vision_weights).load()
        written = llava.caption(tuples.unsafe_images, max_new_tokens=SETTINGS["max_new_tokens"])
        scores = uwm.score(llava, uwm.load_tuples(data, n=N), text=None, vision="fc2", progress=False)
        stronger = [{"tau": share, "variant": "paper"} for share in (0.05, 0.1, 0.2, 0.4)]
        for options in ({"tau": SETTINGS["tau"]}, *stronger):
            with scores.select(alpha=-1.0, **options).applied(llava):
                written += llava.caption(tuples.unsafe_images, max_new_tokens=SETTINGS["max_new_tokens"])
        captions.update(written)
    said = sorted(captions)
    verdicts = [("safe", "unsafe", "unparsed")[len(caption) % 3] for caption in said]
    write_record(folder / "judge.jsonl", said, verdicts, name="somebody")
    write_record(
        folder / "toxicity.jsonl", said, [len(caption) % 11 / 10 for caption in said], name="somebody"
    )
    return {name: f"replay:{folder / name}.jsonl" for name in ("judge", "toxicity")}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The log of every attempt to leave this machine; kernels inherit the environment."""
    log = block_network(tmp_path_factory.mktemp("blocked") / "site")
    with pytest.MonkeyPatch.context() as patch:
        path = [str(log.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "UWM_DATA"):
            patch.delenv(name, raising=False)
        patch.setenv("TQDM_DISABLE", "1")
        yield log


def run(notebook, parameters, folder):
    """Run a chapter with those of the parameters that it has; return everything that its cells put out, and where."""
    declared = declared_parameters(notebook)
    given = {name: value for name, value in parameters.items() if name in declared}
    executed = nbformat.read(
        run_notebook(notebook, output=folder / notebook.name, parameters=given, progress=False), as_version=4
    )
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") + json.dumps(output.get("data", {})) for output in outputs]
    return given, texts


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_chapter_runs_on_a_users_own(notebook, world, refused, tmp_path):
    given, texts = run(notebook, world, tmp_path)
    everything = "".join(texts)
    assert "values not compared" in texts[-1] and "profile is 'paper' here" in texts[-1]
    assert UNSAFE not in everything, "an unsafe caption of a user's own is shown"
    assert not refused.exists(), refused.read_text()
    with open(f"{world['results_dir']}/{notebook.stem}.json", encoding="utf-8") as file:
        saved = json.load(file)
    assert {name: given[name] for name in saved["params"] if name in given}.items() <= saved["params"].items()
    counts = set(numbers_of(saved["values"], "n"))
    assert counts <= {N, 6, 12} and (N in counts or notebook.stem.startswith(("03", "05", "14", "23")))
    if "n_test" in given | declared_parameters(notebook) and "n_calibration" in declared_parameters(notebook):
        assert f"{N} test tuples, {N} calibration tuples, of which {N}" in everything
    if notebook.stem.startswith("05"):
        require_sets(saved["values"]["CLIP"])


def numbers_of(values, key):
    """Yield every number that nested results hold under `key`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers_of(value, key)
        elif name == key:
            yield value


def require_sets(measured):
    """The two sets at hand are measured, and the mean is theirs; the paper's sixteen others are not."""
    assert set(measured) == {"oxford_pets", "roads", "zs_mean"}
    assert measured["roads"]["value"] == 100 and measured["roads"]["n"] == 6
    assert measured["zs_mean"]["value"] == pytest.approx((measured["oxford_pets"]["value"] + 100) / 2)


SMALLEST = {"zero_shot": "", "judge": "", "toxicity": ""}


@pytest.mark.parametrize("which", ["02", "04", "05", "09", "12", "14"])
def test_one_pair_no_concept_no_set_and_no_judge_still_end_in_a_page(which, world, refused, tmp_path):
    (notebook,) = (path for path in NOTEBOOKS if path.stem.startswith(which))
    data = write_pairs(tmp_path / "one", n=1, concepts=False)
    own = world | SMALLEST | {"data": str(data), "results_dir": str(tmp_path / "results")}
    _, texts = run(notebook, own, tmp_path)
    assert "values not compared" in texts[-1]
    if which == "05":
        assert "not at hand: not measured" in "".join(texts) and "CLIP         not measured" in "".join(texts)
