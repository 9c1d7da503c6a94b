"""Training: the loop resumes exactly, the losses are the ones on paper, the reference stays frozen."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from uwmlib import training
from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors, sha256_of_file
from uwmlib.mini.web import web_batch
from uwmlib.mini.worlds import SECOND
from uwmlib.models import mini
from uwmlib.models.losses import symmetric_infonce
from uwmlib.models.mini import wrap_mini
from uwmlib.models.mini_architectures import bare_model
from uwmlib.training import optimisation, recipes, train
from uwmlib.training.contrastive import normalised_pixels, pairwise_sigmoid
from uwmlib.training.optimisation import frozen_copy, one_cycle, optimise
from uwmlib.training.safe_clip import WEIGHTS, eight_losses, safe_clip_loss
from uwmlib.tuples import load_tuples


def test_infonce_of_two_pairs_by_hand():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # similarities: row 0 = (0.6, 0), row 1 = (0.8, 1); scale 2
    rows = [math.log(1 + math.exp(-1.2)), math.log(1 + math.exp(-0.4))]
    columns = [math.log(1 + math.exp(0.4)), math.log(1 + math.exp(-2.0))]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert symmetric_infonce(images, texts, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_sigmoid_loss_of_two_pairs_by_hand():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # logits 2 s - 1: [[0.2, -1], [0.6, 1]]; the diagonal is to be positive, the rest negative
    terms = [math.log(1 + math.exp(x)) for x in (-0.2, -1.0, 0.6, -1.0)]
    assert pairwise_sigmoid(images, texts, 2.0, -1.0).item() == pytest.approx(sum(terms) / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["mini-CoCa", "mini-SigLIP", "mini-ViT-B-32"])
def test_every_family_learns_by_its_own_loss(name):
    vlm = wrap_mini(bare_model(name, seed=0), name=name)
    task = recipes.RECIPES[name].begin(vlm.model, name, batch_size=8, seed=0)
    loss_at = task.loss_at
    loss_at(0).backward()
    missing = [key for key, parameter in vlm.model.named_parameters() if parameter.grad is None]
    assert missing == []
    with torch.no_grad():
        pictures, texts = web_batch(0, batch_size=8, seed=0, world=SECOND)
        pixels, tokens = vlm.preprocess(pictures), vlm.tokenize(texts)
        images, captions = vlm.encode_image(pixels), vlm.encode_text(tokens)
        scale = vlm.model.logit_scale.exp()
        if name == "mini-SigLIP":
            expected = pairwise_sigmoid(images, captions, scale, vlm.model.logit_bias)
        else:
            expected = symmetric_infonce(images, captions, scale)
        if name == "mini-CoCa":
            found = vlm.model(pixels, tokens)
            real = tokens[:, 1:] != 0
            words = found["logits"].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
            expected = expected - 2 * words[real].mean()
        assert loss_at(0).item() == pytest.approx(expected.item(), rel=1e-4)


def test_pixels_are_normalised_channel_first():
    picture = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    picture[0, 0, 1] = (255, 0, 51)
    pixels = normalised_pixels(torch.from_numpy(picture))
    assert pixels.shape == (1, 3, 2, 2)
    assert pixels[0, :, 0, 1].tolist() == pytest.approx([1.0, -1.0, -0.6])


def test_one_cycle_rises_peaks_and_ends_near_zero():
    rates = [one_cycle(step, 200, peak=1.0) for step in range(200)]
    assert (
        rates[0] == pytest.approx(0.1)
        and max(rates) == pytest.approx(1.0)
        and rates.index(max(rates)) in (9, 10)
    )
    assert rates[-1] < 1e-3 and all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def quadratic():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    data = torch.randn(40, 5, 3)
    return model, lambda step: (model(data[step]) - 1).square().mean()


def run(path, *, stop_at=None, steps=12):
    model, loss = quadratic()

    def loss_at(step):
        if step == stop_at:
            raise KeyboardInterrupt
        return loss(step)

    options = {
        "steps": steps,
        "learning_rate": 0.1,
        "weight_decay": 0.1,
        "checkpoint": path,
        "recipe": {"name": "q"},
    }
    curve = optimise(model, loss_at, progress=False, **options)
    return model, curve


def test_resumed_training_equals_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 5)
    whole, _ = run(tmp_path / "a.safetensors")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b.safetensors", stop_at=8)
    assert (tmp_path / "b.safetensors").is_file()
    resumed, _ = run(tmp_path / "b.safetensors")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def toy():
    """Two layers, a copy of them as they were, and a loss of ours that asks for both."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    before, inputs = training.frozen_copy(model), torch.randn(8, 3)
    far, near = torch.randn(30, 8, 2), 0.5

    def loss_at(step):
        out = model(inputs)
        return (out - far[step]).square().mean() + near * (out - before(inputs)).square().mean()

    return model, before, loss_at


def train_toy(model, before, loss_at, path, *, trained=("1.bias",), stop_at=None):
    def until(step):
        if step == stop_at:
            raise KeyboardInterrupt
        return loss_at(step)

    return training.optimise(
        model, until, steps=12, learning_rate=0.1, trained=trained, references=[before], checkpoint=path,
        recipe={"name": "toy"}, progress=False,
    )  # fmt: skip


def test_the_loop_trains_what_is_named_by_any_loss_beside_a_frozen_reference(tmp_path):
    model, before, loss_at = toy()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model[0].bias.requires_grad_(False)
    before.requires_grad_(True)
    curve = train_toy(model, before, loss_at, tmp_path / "toy.safetensors")
    after = model.state_dict()
    assert {name for name in start if not torch.equal(start[name], after[name])} == {"1.bias"}
    assert all(torch.equal(start[name], tensor) for name, tensor in before.state_dict().items())
    assert [p.grad for p in (*model[0].parameters(), model[1].weight, *before.parameters())] == [None] * 7
    # AdamW on this parameter alone, by torch itself; one of one dimension does not decay.
    again, _, loss_at = toy()
    optimizer = torch.optim.AdamW([again[1].bias], weight_decay=0.0)
    losses = []
    for step in range(12):
        optimizer.param_groups[0]["lr"] = one_cycle(step, 12, peak=0.1)
        losses.append(loss_at(step))
        (gradient,) = torch.autograd.grad(losses[-1], [again[1].bias])
        again[1].bias.grad = gradient / max(1.0, gradient.norm().item())
        optimizer.step()
    assert torch.allclose(again[1].bias, model[1].bias, atol=1e-7)
    assert curve == [{"step": 12, "loss": pytest.approx(sum(losses).item() / 12)}]
    # Who had gradients before has them again.
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]


def test_a_part_of_the_parameters_resumes_as_if_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 5)
    path = tmp_path / "toy.safetensors"
    whole = toy()
    train_toy(*whole, tmp_path / "other.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train_toy(*toy(), path, stop_at=8)
    resumed = toy()
    train_toy(*resumed, path)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True))
    for other in (["0.*"], ["1.*"]):
        with pytest.raises(UwmError, match="does not fit"):
            train_toy(*toy(), path, trained=other)


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 5)
    monkeypatch.chdir(tmp_path)
    train_toy(*toy(), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("trained", "words"),
    [(["1.bais"], "'1.bais', which fits no parameter: did you mean '1.bias'"), ([], "trained is empty"),
     ("1.bias", "trained is '1.bias': give a list")],
)  # fmt: skip
def test_what_names_no_parameter_is_refused(trained, words):
    with pytest.raises(UwmError, match=words):
        train_toy(*toy(), None, trained=trained)


def test_a_reference_that_would_follow_the_training_is_refused():
    model, _, loss_at = toy()
    with pytest.raises(UwmError, match="A reference shares the trained weight 1.bias: give a frozen_copy"):
        train_toy(model, torch.nn.Sequential(model[1]), loss_at, None)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("numbers", [{"steps": 0}, {"learning_rate": "1"}])
def test_numbers_of_the_loop_are_checked(numbers):
    model, _, loss_at = toy()
    with pytest.raises(UwmError, match=next(iter(numbers))):
        training.optimise(model, loss_at, **{"steps": 1, "learning_rate": 0.1} | numbers)


def test_checkpoint_of_another_recipe_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.safetensors", stop_at=8)
    model, loss_at = quadratic()
    with pytest.raises(UwmError, match="another recipe"):
        optimise(
            model, loss_at, steps=12, learning_rate=0.1, weight_decay=0.1, progress=False,
            checkpoint=tmp_path / "c.safetensors", recipe={"name": "other"},
        )  # fmt: skip


def test_gradients_are_clipped_to_a_norm_of_one(tmp_path):
    # AdamW forgets the scale of a constant gradient, so the second gradient is a hundred times the first.
    model = torch.nn.Linear(2, 1, bias=False)
    start = model.weight.detach().clone().double()[0]
    slopes = [torch.tensor([0.3, 0.4]), torch.tensor([40.0, -30.0])]
    optimise(
        model, lambda step: (model.weight[0] * slopes[step]).sum(), steps=2, learning_rate=0.1, weight_decay=0.0,
        checkpoint=tmp_path / "x.safetensors", recipe={}, progress=False,
    )  # fmt: skip
    m = v = torch.zeros(2, dtype=torch.float64)
    want = start
    for step, slope in enumerate((slopes[0].double(), slopes[1].double() / 50), start=1):
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        rate = one_cycle(step - 1, 2, peak=0.1)
        want = want - rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    assert model.weight[0].tolist() == pytest.approx(want.tolist(), abs=1e-5)


def test_exploding_loss_is_reported(tmp_path):
    model, _ = quadratic()
    with pytest.raises(UwmError, match="step 0"):
        optimise(
            model, lambda step: model.weight.sum() * float("inf"), steps=2, learning_rate=0.1, weight_decay=0.0,
            checkpoint=tmp_path / "d.safetensors", recipe={}, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda model: model.weight.sum() * float("nan"), "The loss is nan at step 0"),
        (lambda model: (0 * model.weight).abs().sqrt().sum(), "The gradient is not finite at step 0"),
        (lambda model: model.weight, r"is torch.float32 \[2, 3\]: give one number"),
        (lambda model: torch.tensor(1.0), "without a gradient"), (lambda model: 1.0, "is 1.0: give one number"),
        (lambda model: None, "is None"), (lambda model: 1j * model.weight.sum(), "is torch.complex64"),
    ],
)  # fmt: skip
def test_a_loss_that_cannot_be_followed_leaves_the_weights_as_they_were(loss, words):
    model, _ = quadratic()
    before = model.weight.tolist()
    with pytest.raises(UwmError, match=words):  # also in the last step, behind which no loss would tell
        optimise(model, lambda step: loss(model), steps=1, learning_rate=0.1, progress=False)
    assert model.weight.tolist() == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weight_decay": -1}, "weight_decay"), ({"weight_decay": "a"}, "weight_decay"),
        ({"trained": None}, "trained is None"), ({"trained": [5]}, r"trained is \[5\]"),
        ({"references": torch.nn.Linear(1, 1)}, "give a list of models"), ({"references": ["x"]}, "A reference is 'x'"),
        ({"recipe": "abc"}, "recipe is 'abc'"), ({"recipe": {"a": {1}}}, "JSON cannot hold the recipe"),
        ({"recipe": {"a": float("nan")}}, "JSON cannot hold the recipe"),
        ({"checkpoint": "."}, "folder"), ({"checkpoint": "a\0b"}, "NUL"), ({"checkpoint": 5}, "path of a file is 5"),
        ({"checkpoint": __file__ + "/x.safetensors"}, "cannot be written"),
    ],
)  # fmt: skip
def test_what_would_fail_late_is_refused_before_the_first_step(wrong, words):
    def unasked(step):
        raise AssertionError("a step was taken")

    with pytest.raises(UwmError, match=words):
        optimise(torch.nn.Linear(1, 1), unasked, **{"steps": 1, "learning_rate": 0.1} | wrong)
    for model, loss_at in ((None, unasked), (torch.nn.Linear(1, 1), 5)):
        with pytest.raises(UwmError, match="give a"):
            optimise(model, loss_at, steps=1, learning_rate=0.1)


def test_a_checkpoint_is_known_again_by_its_own_recipe_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 5)
    place = tmp_path / "c.safetensors"

    def begin(stop_at=None, **changed):
        model, loss = quadratic()

        def loss_at(step):
            if step == stop_at:
                raise KeyboardInterrupt
            return loss(step)

        options = {"steps": 12, "learning_rate": 0.1, "recipe": {"betas": (0.9, 0.99)}} | changed
        return optimise(model, loss_at, progress=False, checkpoint=place, **options)

    with pytest.raises(KeyboardInterrupt):
        begin(stop_at=8)
    for changed in ({"steps": 20}, {"learning_rate": 0.2}, {"weight_decay": 0.1}, {"recipe": {}}):
        with pytest.raises(UwmError, match="belongs to another recipe"):
            begin(**changed)
    assert [point["step"] for point in begin()] == [12]


def test_eight_losses_vanish_or_not_by_their_definition():
    eye = torch.eye(4)
    same = {"safe_text": eye, "unsafe_text": eye, "safe_image": eye, "unsafe_image": eye}
    terms = eight_losses(same, same)
    assert set(terms) == set(WEIGHTS)
    assert all(abs(value.item()) < 1e-6 for value in terms.values())
    moved = same | {"unsafe_text": eye.roll(1, dims=0)}
    changed = eight_losses(moved, same)
    assert changed["text_unsafe"].item() == pytest.approx(1.0)  # orthogonal to the safe twin
    assert changed["text_unsafe_to_image"].item() == pytest.approx(100.0, abs=1e-3)  # sure, and wrong
    assert changed["text_safe"].item() == pytest.approx(0.0, abs=1e-6)


def test_reference_does_not_follow_the_student():
    model = bare_model("mini-ViT-L-14", seed=0)
    tuples = load_tuples("mini-visu", split="train", n=64)
    loss_at = safe_clip_loss(model, frozen_copy(model), tuples, world=SECOND, batch_size=8, seed=0)
    before = loss_at(0).item()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    reference_at_start = bare_model("mini-ViT-L-14", seed=0)
    copy = frozen_copy(reference_at_start)
    fresh = safe_clip_loss(reference_at_start, copy, tuples, world=SECOND, batch_size=8, seed=0)
    assert fresh(0).item() == pytest.approx(before, rel=1e-6)
    # Were the reference the student itself (as in the released code), preservation would cost nothing.
    itself = safe_clip_loss(model, model, tuples, world=SECOND, batch_size=8, seed=0)
    assert loss_at(0).item() > itself(0).item() + 1


def test_trained_files_load_and_repeat(tmp_path):
    first = train("mini-ViT-L-14", output=tmp_path / "a", steps=2, progress=False)
    second = train("mini-ViT-L-14", output=tmp_path / "b", steps=2, progress=False)
    one, two = load_file(first), load_file(second)
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)
    tuned = load_file(train("mini-Safe-CLIP", output=tmp_path / "a", steps=1, progress=False))
    assert any(not torch.equal(tuned[key], one[key]) for key in one)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "mini-Safe-CLIP.json", "mini-Safe-CLIP.safetensors", "mini-ViT-L-14.json", "mini-ViT-L-14.safetensors",
    ]  # fmt: skip


def test_unknown_recipe_is_refused(tmp_path):
    with pytest.raises(UwmError, match="did you mean 'mini-ViT-L-14'"):
        train("mini-ViT-L14", output=tmp_path)
    for steps in (0, -1, 1.5):
        with pytest.raises(UwmError, match="at least one step"):
            train("mini-ViT-L-14", output=tmp_path, steps=steps)
    for seed in (-1, 2**63, 0.5):
        with pytest.raises(UwmError, match="seed is"):
            train("mini-ViT-L-14", output=tmp_path, seed=seed)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def base(tmp_path):
    """A folder with a base of one's own and its record."""
    folder = tmp_path / "own"
    folder.mkdir()
    weights = bare_model("mini-ViT-L-14", seed=0).state_dict()
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, folder / "mini-ViT-L-14.safetensors"
    )
    record = {"sha256": sha256_of_file(folder / "mini-ViT-L-14.safetensors")}
    (folder / "mini-ViT-L-14.json").write_text(json.dumps(record))
    return folder / "mini-ViT-L-14.safetensors"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 64
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def become_another(path):
    save_file({"x": torch.zeros(2)}, path)
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, become_a_folder, become_another])
@pytest.mark.parametrize("name", ["mini-Safe-CLIP", "mini-LLaVA"])
def test_a_damaged_base_of_ones_own_is_refused(base, damage, name):
    damage(base)
    before = sorted(base.parent.iterdir())
    with pytest.raises(UwmError, match="mini-ViT-L-14"):
        train(name, output=base.parent, steps=1, progress=False)
    assert sorted(base.parent.iterdir()) == before


def test_a_base_whose_record_is_unreadable_is_refused(base):
    base.with_suffix(".json").write_text("{")
    with pytest.raises(UwmError, match="record .*mini-ViT-L-14.json"):
        train("mini-Safe-CLIP", output=base.parent, steps=1, progress=False)


@pytest.mark.parametrize(("damage", "words"), [(flip_a_bit, "sha256 differs"), (Path.unlink, "are missing")])
def test_a_damaged_shipped_base_is_refused(tmp_path, monkeypatch, damage, words):
    shutil.copy(mini.WEIGHTS / "mini-ViT-L-14.safetensors", tmp_path)
    monkeypatch.setattr(mini, "WEIGHTS", tmp_path)
    damage(tmp_path / "mini-ViT-L-14.safetensors")
    with pytest.raises(UwmError, match=words):
        train("mini-Safe-CLIP", output=tmp_path / "out", steps=1, progress=False)
    assert not (tmp_path / "out").exists()


def test_outputs_are_checked_before_training(base, monkeypatch):
    def begin(*_):
        raise AssertionError("training began")

    monkeypatch.setattr(recipes, "_begin", begin)
    (base.parent / "mini-Safe-CLIP.safetensors").symlink_to(base)
    with pytest.raises(UwmError, match="would replace what is read from .*mini-ViT-L-14"):
        train("mini-Safe-CLIP", output=base.parent)
    (base.parent / "mini-CoCa.json").mkdir()
    with pytest.raises(UwmError, match="mini-CoCa.json is no file"):
        train("mini-CoCa", output=base.parent)
    with pytest.raises(UwmError, match="replace what is read"):
        train("mini-ViT-B-32", output=mini.WEIGHTS)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 12}, {"step": 0}, {"step": -3}, {"step": "5"}, {"step": None}, {"curve": 3}, {"curve": [{}]},
        {"curve": [3]},
    ],
)  # fmt: skip
def test_a_crafted_checkpoint_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(optimisation, "CHECKPOINT_EVERY", 5)
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_at=8)
    tensors, facts = load_tensors(path, kind="training-checkpoint")
    save_tensors(path, tensors, kind="training-checkpoint", metadata=facts | change)
    with pytest.raises(UwmError, match="remove it to begin again"):
        run(path)
    save_tensors(path, {"x": torch.zeros(1)}, kind="training-checkpoint", metadata=facts)
    with pytest.raises(UwmError, match="does not fit"):
        run(path)
