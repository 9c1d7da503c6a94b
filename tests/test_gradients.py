"""The gradient baselines against finite differences and hand-worked losses."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import TINY, indices_of, tiny_clip, tiny_tuples

from uwmlib.editing import g_safe_clip_loss, g_unsafe_loss, gradient_scores
from uwmlib.editing.gradients import LOSSES, VARIANTS
from uwmlib.errors import UwmError

# Unit vectors in the plane: safe text, unsafe text, safe image, unsafe image of two tuples.
ANGLES = {"ts": (10.0, 80.0), "tu": (40.0, 100.0), "vs": (0.0, 95.0), "vu": (55.0, 150.0)}


def plane(name: str) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in ANGLES[name]])


def distance(a: str, b: str) -> float:
    return sum(1 - math.cos(math.radians(x - y)) for x, y in zip(ANGLES[a], ANGLES[b], strict=True)) / 2


def test_g_unsafe_by_hand():
    items = [plane(name) for name in ("ts", "tu", "vs", "vu")]
    paper = distance("ts", "tu") - distance("ts", "vs")
    assert g_unsafe_loss(*items, variant="paper") == pytest.approx(paper, abs=1e-6)
    released = distance("ts", "vu") - distance("ts", "vs")
    assert g_unsafe_loss(*items, variant="released") == pytest.approx(released, abs=1e-6)


def test_g_safe_clip_by_hand():
    def cross_entropy(row: list[float], target: int) -> float:
        return math.log(sum(math.exp(value - row[target]) for value in row))

    logits = [[100 * math.cos(math.radians(x - y)) for y in ANGLES["vu"]] for x in ANGLES["ts"]]
    columns = [list(column) for column in zip(*logits, strict=True)]
    contrast = sum(cross_entropy(rows[i], i) for rows in (logits, columns) for i in range(2)) / 4
    items = [plane(name) for name in ("ts", "tu", "vs", "vu")]
    for variant in VARIANTS:
        loss = g_safe_clip_loss(*items, variant=variant)
        assert loss == pytest.approx(contrast + distance("ts", "tu"), rel=1e-4)


def losses_of_text(vlm, tuples, frozen: dict[str, torch.Tensor]) -> dict[tuple[str, str], float]:
    """All four losses of the text encoder written out, with constant embeddings of everything but t_s."""
    ts = vlm.encode_text(vlm.tokenize(tuples.safe_texts))

    def cos(other: str) -> torch.Tensor:
        return (ts * frozen[other]).sum(dim=1)

    logits = 100 * ts @ frozen["vu"].T
    contrast = -(logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()).mean() / 2
    safe_clip = contrast + (1 - cos("tu")).mean()
    return {
        ("g-unsafe", "released"): -(1 - cos("vs")).mean() + (1 - cos("vu")).mean(),
        ("g-unsafe", "paper"): -(1 - cos("vs")).mean() + (1 - cos("tu")).mean(),
        ("g-safe-clip", "released"): safe_clip,
        ("g-safe-clip", "paper"): safe_clip,
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_equals_finite_differences(loss, variant):
    vlm, tuples = tiny_clip(), tiny_tuples(5)
    vlm.model.double()
    with torch.no_grad():
        frozen = {
            "tu": vlm.encode_text(vlm.tokenize(tuples.unsafe_texts)),
            "vs": vlm.encode_image(vlm.preprocess(tuples.safe_images)),
            "vu": vlm.encode_image(vlm.preprocess(tuples.unsafe_images)),
        }
        scores = gradient_scores(
            vlm, tuples, loss=loss, variant=variant, text="value", vision=None, progress=False
        )
        site = scores.sites[1]
        weight, step = vlm.weight(site), 1e-5
        strongest = int(scores.gradients[site.name].argmax())
        for row, column in [divmod(strongest, 32), (0, 0), (7, 20), (31, 31)]:
            values = []
            for sign in (1, -1):
                weight[row, column] += sign * step
                values.append(float(losses_of_text(vlm, tuples, frozen)[loss, variant]))
                weight[row, column] -= sign * step
            expected = abs(values[0] - values[1]) / (2 * step)
            assert float(scores.gradients[site.name][row, column]) == pytest.approx(
                expected, rel=1e-3, abs=1e-8
            )


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("variant", VARIANTS)
def test_vision_loss_is_the_mirror_of_the_text_loss(family, variant):
    vlm, tuples = TINY[family](), tiny_tuples(4)
    scores = gradient_scores(
        vlm, tuples, loss="g-unsafe", variant=variant, text=None, vision="fc2", progress=False
    )
    with torch.no_grad():
        ts, tu = (vlm.encode_text(vlm.tokenize(texts)) for texts in (tuples.safe_texts, tuples.unsafe_texts))
        vu = vlm.encode_image(vlm.preprocess(tuples.unsafe_images))
    vs = vlm.encode_image(vlm.preprocess(tuples.safe_images))
    target = tu if variant == "released" else vu
    loss = torch.mean(1 - (vs * target).sum(dim=1)) - torch.mean(1 - (vs * ts).sum(dim=1))
    loss.backward()
    for site in scores.sites:
        expected = vlm.model.get_parameter(site.parameter).grad.abs()
        assert torch.allclose(scores.gradients[site.name], expected, rtol=1e-3, atol=1e-8)


def test_absolute_values_are_averaged_over_batches_by_their_size():
    tuples = tiny_tuples(5)

    def alone(rows: slice, encoder: str) -> dict[str, torch.Tensor]:
        sites = {"text": None, "vision": None, encoder: "out"}
        return gradient_scores(tiny_clip(), tuples[rows], progress=False, **sites).gradients

    scores = gradient_scores(
        tiny_clip(), tuples, text="out", vision="out", batch_size={"text": 3, "vision": 5}, progress=False
    )
    first, second = alone(slice(0, 3), "text"), alone(slice(3, 5), "text")
    for name in first:
        assert torch.allclose(
            scores.gradients[name], (3 * first[name] + 2 * second[name]) / 5, rtol=1e-4, atol=1e-9
        )
    for name, whole in alone(slice(0, 5), "vision").items():
        assert torch.allclose(scores.gradients[name], whole, rtol=1e-4, atol=1e-9)


def test_model_is_left_alone():
    vlm = tiny_clip()
    vlm.model.requires_grad_(False)
    vlm.model.logit_scale.requires_grad_(True)
    kept = torch.ones_like(vlm.model.logit_scale)
    vlm.model.logit_scale.grad = kept
    before = vlm.weights_hash()
    with torch.no_grad():
        gradient_scores(vlm, tiny_tuples(2), progress=False)
    assert vlm.weights_hash() == before
    assert [name for name, p in vlm.model.named_parameters() if p.requires_grad] == ["logit_scale"]
    assert [p.grad for p in vlm.model.parameters() if p.grad is not None] == [kept]


class TestSelecting:
    @pytest.mark.parametrize(("loss", "share"), [("g-unsafe", 0.035), ("g-safe-clip", 0.005)])
    def test_defaults_prune_the_released_share_of_text_weights(self, loss, share):
        edit = gradient_scores(tiny_clip(), tiny_tuples(4), loss=loss, vision=None, progress=False).select()
        assert {change.alpha for change in edit.changes.values()} == {0.0}
        assert edit.share()["text"] == (1024 - int((1 - share) * 1024)) / 1024
        assert edit.description["method"] == loss

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_default_rule_is_adaptive_only_for_vision_of_the_released_g_unsafe(self, loss, variant):
        scores = gradient_scores(tiny_clip(), tiny_tuples(4), loss=loss, variant=variant, progress=False)
        default = scores.select(tau=0.2)
        vision = "adaptive" if (loss, variant) == ("g-unsafe", "released") else "fixed"
        explicit = scores.select(tau=0.2, rule={"text": "fixed", "vision": vision})
        swapped = "fixed" if vision == "adaptive" else "adaptive"
        other = scores.select(tau=0.2, rule={"text": "adaptive", "vision": swapped})
        for name, indices in indices_of(default).items():
            assert torch.equal(indices, explicit.changes[name].indices)
            assert not torch.equal(indices, other.changes[name].indices)

    def test_one_encoder_and_edited_weights(self):
        vlm = tiny_clip()
        scores = gradient_scores(vlm, tiny_tuples(4), progress=False)
        edit = scores.select(text=None)
        assert set(edit.share()) == {"vision"}
        with edit.applied(vlm), pytest.raises(UwmError, match="another edit may be applied"):
            scores.select()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "g-unsave"}, "'g-unsafe'"),
        ({"variant": "release"}, "'released'"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": {"text": 4}}, "batch_size has no value for the vision encoder"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UwmError, match=message):
        gradient_scores(tiny_clip(), tiny_tuples(2), progress=False, **options)


def test_useless_gradients_are_refused():
    vlm = tiny_clip()
    with torch.no_grad():
        vlm.model.text_projection.zero_()
    with pytest.raises(UwmError, match=r"text\.0\.out is NaN or infinite|No gradient reaches text\.0\.out"):
        gradient_scores(vlm, tiny_tuples(2), vision=None, progress=False)
    vlm = tiny_clip()
    with torch.no_grad():
        vlm.model.visual.proj[0, 0] = float("nan")
    with pytest.raises(UwmError, match=r"vision\.0\.fc2 is NaN or infinite"):
        gradient_scores(vlm, tiny_tuples(2), text=None, progress=False)


def test_progress_goes_to_stderr(capsys):
    gradient_scores(tiny_clip(), tiny_tuples(2))
    shown = capsys.readouterr()
    assert shown.out == "" and "4/4" in shown.err
