"""Safe shift: its forms against numpy, loops and perturbations, and its edit against the re-ranker that it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_clip, tiny_coca, tiny_tuples

import uwmlib as uwm
from uwmlib.comparison import evaluate_edits, shift_that_keeps, shifted_setting
from uwmlib.editing import SafeLoss, WeightEdit, collect_features, fit_residual_shift, fit_safe_shift
from uwmlib.editing.safe_shift import _Moments
from uwmlib.errors import UwmError
from uwmlib.evaluation import evaluate_features
from uwmlib.metrics import knowledge
from uwmlib.models.capture import capture_blocks
from uwmlib.models.heads import find_head

N = 20


@pytest.fixture(scope="module", params=[tiny_clip, tiny_coca], ids=["CLIP", "CoCa"])
def vlm(request):
    return request.param()


@pytest.fixture(scope="module")
def tuples():
    return tiny_tuples(N)


def raw(vlm, tuples):
    """Embeddings of the four parts before they are made unit vectors."""
    with torch.inference_mode():
        text = {
            side: vlm.text_features(vlm.tokenize(getattr(tuples, f"{side}_texts")))
            for side in ("safe", "unsafe")
        }
        image = {
            side: vlm.image_features(vlm.preprocess(getattr(tuples, f"{side}_images")))
            for side in ("safe", "unsafe")
        }
    return text, image


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("ridge", [0.05, 2.0])
def test_the_closed_form_is_numpy_s(vlm, tuples, batch_size, ridge):
    found = fit_safe_shift(vlm, tuples, ridge=ridge, batch_size=batch_size, progress=False)
    text, image = raw(vlm, tuples)
    for encoder, own, gallery in (("text", text, image), ("vision", image, text)):
        safe, unsafe = (unit(gallery[side].double()).numpy() for side in ("safe", "unsafe"))
        spread = np.cov(np.concatenate([safe, unsafe]).T, bias=True) + np.cov((safe - unsafe).T, bias=True)
        spread += ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
        b = np.linalg.solve(spread, (safe - unsafe).mean(axis=0))
        np.testing.assert_allclose(found.directions[encoder].numpy(), b / np.linalg.norm(b), atol=1e-5)
        lengths = torch.cat([own["safe"], own["unsafe"]]).norm(dim=1)
        assert found.lengths[encoder] == pytest.approx(float(lengths.mean()), rel=1e-5)
    assert found.n == N


def test_a_direction_worked_by_hand():
    # Differences (1, -1) and (0, 0) have the mean (1, -1) / 2; both covariances are multiples of [[1, -1], [-1, 1]],
    # of which (1, -1) is an eigenvector. Of the second pair's length nothing is left but the mean length.
    moments = _Moments()
    moments.add(torch.tensor([[3.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double())
    moments.add(torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[0.0, 1.0]]).double())
    half = 0.5**0.5
    assert torch.allclose(moments.direction(1.0), torch.tensor([half, -half]).double())
    assert moments.length == 1.5


@pytest.mark.parametrize("alpha", [0.3, 5.0])
def test_the_edit_is_a_prior_on_the_gallery(vlm, tuples, alpha):
    shift = fit_safe_shift(vlm, tuples, progress=False)
    text, image = raw(vlm, tuples)
    with shift.edit(alpha).applied(vlm):
        shifted_text, shifted_image = raw(vlm, tuples)
        found = uwm.evaluate(vlm, tuples).safeground
    for encoder, before, after in (("text", text, shifted_text), ("vision", image, shifted_image)):
        b = alpha * shift.lengths[encoder] * shift.directions[encoder].float()
        projection = find_head(vlm.model, encoder)[1]
        if projection is not None:  # what its rows can make of b
            b = projection.T @ torch.linalg.lstsq(projection.T, b, driver="gelsd").solution
        for side in ("safe", "unsafe"):
            assert torch.allclose(after[side], before[side] + b, rtol=1e-3, atol=1e-4)
    # Both galleries are shifted too, so the reference is computed from the shifted embeddings of both.
    safe, unsafe = (unit(shifted_image[side].double()) for side in ("safe", "unsafe"))
    for key, side in (("p_s_t", "safe"), ("p_u_t", "unsafe")):
        margin = (shifted_text[side].double() * (safe - unsafe)).sum(dim=1)
        assert torch.equal(getattr(found, key), margin > 0)


def test_only_text_queries_lean_by_a_term_that_no_query_changes(vlm, tuples):
    shift = fit_safe_shift(vlm, tuples, encoders="text", progress=False)
    assert list(shift.directions) == ["text"]
    text, image = raw(vlm, tuples)
    with shift.edit(2.0).applied(vlm):
        shifted, same = raw(vlm, tuples)
    assert all(torch.equal(same[side], image[side]) for side in image)
    difference = unit(image["safe"]) - unit(image["unsafe"])
    terms = [((shifted[side] - text[side]) * difference).sum(dim=1) for side in text]
    assert torch.allclose(terms[0], terms[1], atol=1e-3)  # whatever the query
    assert terms[0].mean() > 0


def test_strength_by_encoder_and_none(vlm, tuples):
    shift = fit_safe_shift(vlm, tuples, progress=False)
    assert list(shift.edit({"vision": 1.0}).share()) == ["vision"]
    before = uwm.evaluate(vlm, tuples)
    with shift.edit(0.0).applied(vlm):
        after = uwm.evaluate(vlm, tuples)
    assert after.as_percent() == before.as_percent()
    state = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    with shift.edit(1.0).applied(vlm):
        pass
    assert all(torch.equal(value, state[name]) for name, value in vlm.model.state_dict().items())


def test_it_is_saved_and_refused_on_another_base(tmp_path, tuples):
    vlm = tiny_clip()
    edit = fit_safe_shift(vlm, tuples, progress=False).edit({"text": 0.5, "vision": 0.25})
    edit.save(tmp_path / "shift.safetensors")
    again = WeightEdit.load(tmp_path / "shift.safetensors")
    assert again.description == edit.description and again.description["alpha"] == {
        "text": 0.5,
        "vision": 0.25,
    }
    with edit.applied(vlm):
        one = vlm.encode_text(vlm.tokenize(["word1"]))
    with again.applied(vlm):
        other = vlm.encode_text(vlm.tokenize(["word1"]))
    assert torch.equal(one, other)
    other = tiny_clip()
    with torch.no_grad():
        other.model.ln_final.bias += 0.1
    with pytest.raises(UwmError, match="not those that were scored"), again.applied(other):
        pass


def test_what_cannot_be_fitted_is_refused(tuples):
    vlm = tiny_clip()
    shift = fit_safe_shift(vlm, tuples, encoders=["text"], progress=False)
    for alpha, words in (({"vision": 1.0}, "fitted encoder"), ({}, "no encoder"), (float("nan"), "alpha")):
        with pytest.raises(UwmError, match=words):
            shift.edit(alpha)
    same = replace(tuples, unsafe_images=tuples.safe_images, unsafe_texts=tuples.safe_texts)
    with pytest.raises(UwmError, match="do not differ"):
        fit_safe_shift(vlm, same, progress=False)
    for options, words in (
        ({"encoders": "image"}, "encoder"),
        ({"ridge": 0}, "ridge"),
        ({"batch_size": 0}, "batch"),
    ):
        with pytest.raises(UwmError, match=words):
            fit_safe_shift(vlm, tuples, progress=False, **options)
    with pytest.raises(UwmError, match="load"):
        fit_safe_shift("mini-ViT-L-14", tuples)


def test_it_leans_on_tuples_that_it_has_not_seen():
    vlm = uwm.load_model("mini-ViT-L-14")
    shift = fit_safe_shift(vlm, uwm.load_tuples("mini-visu", split="train", n=300), progress=False)
    tuples = uwm.load_tuples("mini-visu", split="validation", n=300)
    before = uwm.evaluate(vlm, tuples)
    with shift.edit(1.0).applied(vlm):
        after = uwm.evaluate(vlm, tuples)
    for query in ("text", "image"):
        assert after[f"bias_{query}"].interval[0] > before[f"bias_{query}"].interval[1]


def test_the_strength_is_the_one_that_keeps_the_share():
    vlm = uwm.load_model("mini-ViT-L-14")
    calibration = uwm.load_tuples("mini-visu", split="train", n=200)
    validation = uwm.load_tuples("mini-visu", split="validation", n=200)
    edit = uwm.safe_shift(vlm, calibration, validation=validation, keep=0.9, tolerance=2, progress=False)
    before = uwm.evaluate(vlm, validation)
    with edit.applied(vlm):
        after = uwm.evaluate(vlm, validation)
    assert abs(100 * knowledge(after).value / knowledge(before).value - 90) <= 2
    assert edit.description["alpha"]["text"] == edit.description["alpha"]["vision"] > 0
    with pytest.raises(UwmError, match="test"):
        uwm.safe_shift(vlm, calibration, validation=replace(validation, split="test"), progress=False)
    with pytest.raises(UwmError, match="no strength"):
        uwm.safe_shift(vlm, calibration, validation=validation, keep=0.5, strengths=[0.01], progress=False)


# Fitted


def units(n, d, names, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: unit(torch.randn(n, d, generator=generator, dtype=torch.float64)) for name in names}


TUPLES = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")
FORMS = tuple(f"{form}_{side}" for form in ("harmless", "unsafe", "clean") for side in ("text", "image"))


def softplus(x):
    return float(np.log1p(np.exp(x)))


@pytest.mark.parametrize("block", [2, 5, 100])
def test_the_loss_is_the_printed_one(block):
    n, pairs, benign = 5, units(5, 4, TUPLES), units(3, 4, FORMS, seed=1)
    loss = SafeLoss(lean=0.7, spare=0.3, scale=9.0, temperature=0.2, block=block)
    t, v = pairs["safe_text"].numpy(), pairs["safe_image"].numpy()
    total = 0.0
    for i in range(n):
        peers = [j for j in range(n) if j // block == i // block]
        for query, gallery in ((t, v), (v, t)):
            total -= 9.0 * query[i] @ gallery[i] - np.log(
                sum(np.exp(9.0 * query[i] @ gallery[j]) for j in peers)
            )
    total /= 2 * n
    hinges = {"tuples": [], "benign": []}
    for query, gallery in (("text", "image"), ("image", "text")):
        for i in range(n):
            apart = (pairs[f"safe_{gallery}"] - pairs[f"unsafe_{gallery}"])[i].numpy()
            for side in ("safe", "unsafe"):
                hinges["tuples"].append(softplus(-float(pairs[f"{side}_{query}"][i].numpy() @ apart) / 0.2))
        for i in range(3):
            for form in ("unsafe", "clean"):
                apart = (benign[f"harmless_{gallery}"] - benign[f"{form}_{gallery}"])[i].numpy()
                hinges["benign"].append(
                    softplus(-float(benign[f"harmless_{query}"][i].numpy() @ apart) / 0.2)
                )
    expected = total + 0.7 * np.mean(hinges["tuples"])
    assert float(loss(pairs, {})) == pytest.approx(expected)
    assert float(loss(pairs, benign)) == pytest.approx(expected + 0.3 * np.mean(hinges["benign"]))


def value(features, shift, loss, alpha=1.0):
    there = features.changed(shift.changes(alpha))
    parts = {part: unit(rows.double()) for part, rows in there.tuples.items()}
    return float(loss(parts, {}))


@pytest.fixture(scope="module")
def mini():
    vlm = uwm.load_model("mini-ViT-L-14")
    return vlm, collect_features(vlm, uwm.load_tuples("mini-visu", split="train", n=200))


def test_no_small_step_from_the_fitted_vectors_lowers_the_loss(mini):
    vlm, features = mini
    loss = SafeLoss()
    fitted = fit_safe_shift(vlm, features, how="fitted", iterations=200)
    least = value(features, fitted, loss)
    assert least < value(features, fit_safe_shift(vlm, features), loss, 0.5) - 0.05
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = {key: 0.05 * torch.randn(b.shape, generator=generator) for key, b in fitted.directions.items()}
        near = replace(fitted, directions={key: b + step[key] for key, b in fitted.directions.items()})
        assert value(features, near, loss) > least - 1e-4


def test_a_map_fits_better_than_a_vector_and_its_edit_does_the_same(mini):
    vlm, features = mini
    vector, mapped = (fit_safe_shift(vlm, features, how="fitted", rank=rank) for rank in (0, 1))
    loss = SafeLoss()
    assert value(features, mapped, loss) < value(features, vector, loss) - 0.2
    edit = mapped.edit(0.7)
    assert edit.description["rank"] == 1
    assert sorted(edit.changes) == ["ln_final.bias", "text_projection", "visual.ln_post.bias", "visual.proj"]
    with edit.applied(vlm):
        real = collect_features(vlm, uwm.load_tuples("mini-visu", split="train", n=200))
    for part, rows in features.changed(mapped.changes(0.7)).tuples.items():
        assert ((rows - real.tuples[part]).norm(dim=1) < 1e-4 * rows.norm(dim=1)).all()
    for encoder, (down, up) in mapped.maps.items():
        rows = features.tuples["safe_text" if encoder == "text" else "safe_image"].double()
        wanted = rows + 0.7 * (rows @ down @ up + mapped.lengths[encoder] * mapped.directions[encoder])
        moved = mapped.changes(0.7)[encoder](rows)
        assert ((moved - wanted).norm(dim=1) < 1e-4 * wanted.norm(dim=1)).all()


def test_benign_uses_join_the_fit_with_their_weight():
    vlm = uwm.load_model("mini-ViT-L-14")
    train = uwm.load_tuples("mini-visu", split="train", n=150)
    uses = uwm.load_benign("mini-visu", split="train", n=150)
    other = uwm.load_benign("mini-visu", split="validation", n=150)
    spared = fit_safe_shift(vlm, train, how="fitted", rank=1, benign=uses, progress=False)
    plain = fit_safe_shift(vlm, train, how="fitted", rank=1, progress=False)
    features = collect_features(vlm, train, benign=other)
    rates = [
        evaluate_features(features.changed(shift.changes(1.0)))["benign"].value for shift in (plain, spared)
    ]
    assert rates[1] > rates[0] + 2
    weightless = fit_safe_shift(vlm, features, how="fitted", loss=SafeLoss(spare=0))
    without = fit_safe_shift(vlm, replace(features, benign={}), how="fitted")
    for encoder in ("text", "vision"):
        assert torch.equal(weightless.directions[encoder], without.directions[encoder])


def test_features_measure_what_the_edit_measures(vlm, tuples):
    features = collect_features(vlm, tuples, batch_size=3)
    base = uwm.evaluate(vlm, tuples)
    assert evaluate_features(features).as_percent() == base.as_percent()
    shift = fit_safe_shift(vlm, features)
    found = shifted_setting(shift, 0.8, features, base=base)
    real = evaluate_edits(vlm, shift.edit(0.8), tuples, base=base)
    assert found.runs[0].as_percent() == real.runs[0].as_percent() and found.n_weights == real.n_weights


def test_an_edit_of_the_head_is_refused_on_another_projection(tmp_path, tuples):
    vlm, other = tiny_clip(), tiny_clip()
    edit = fit_safe_shift(vlm, tuples, encoders="text", progress=False).edit(1.0)
    with torch.no_grad():
        other.model.text_projection += 0.1
    edit.save(tmp_path / "shift.safetensors")
    for each in (edit, WeightEdit.load(tmp_path / "shift.safetensors")):
        with pytest.raises(UwmError, match="text_projection are not those"), each.applied(other):
            pass
    assert (
        edit.merged(WeightEdit({})).rests_on
        == edit.rests_on
        == {"text_projection": edit.rests_on["text_projection"]}
    )
    with edit.applied(vlm):
        pass


def test_what_the_fit_cannot_take_is_refused(tuples):
    vlm = tiny_clip()
    features = collect_features(vlm, tuples)
    for options, words in (
        ({"rank": 1}, "ask for how='fitted'"),
        ({"loss": SafeLoss()}, "ask for how='fitted'"),
        ({"how": "adam"}, "way to fit"),
        ({"how": "fitted", "rank": -1}, "rank"),
        ({"how": "fitted", "benign": uwm.load_benign("mini-visu", n=2)}, "Features bring"),
    ):
        with pytest.raises(UwmError, match=words):
            fit_safe_shift(vlm, features, **options)
    with pytest.raises(UwmError, match="features of tiny"):
        fit_safe_shift(vlm, replace(features, model="tiny-other"))
    with pytest.raises(UwmError, match="test"):
        shift_that_keeps(fit_safe_shift(vlm, features), 80, replace(features, split="test"))


def test_every_fifth_pair_finds_the_strength_where_none_are_given():
    vlm = uwm.load_model("mini-ViT-L-14")
    pairs = uwm.load_tuples("mini-visu", split="train", n=200)
    last = np.arange(200) % 5 == 4
    held = uwm.safe_shift(vlm, pairs, keep=0.9, tolerance=2)
    given = uwm.safe_shift(vlm, pairs[~last], validation=pairs[last], keep=0.9, tolerance=2)
    assert held.description == given.description
    with pytest.raises(UwmError, match="at least 10"):
        uwm.safe_shift(vlm, pairs[:9])


# In the residual stream


@pytest.mark.parametrize("encoder", ["text", "vision"])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_residual_direction_is_numpy_s_and_is_added_at_every_token(tuples, encoder, batch_size):
    vlm = tiny_clip()
    found = fit_residual_shift(vlm, tuples, encoder=encoder, layer=-2, batch_size=batch_size, progress=False)
    assert found.layer == 0
    sides = {}
    for side in ("safe", "unsafe"):
        sides[side] = stream(vlm, tuples, side, encoder, 0)
    means = {
        side: np.stack([x[keep].mean(axis=0) for x, keep in zip(*of, strict=True)])
        for side, of in sides.items()
    }
    d = (means["safe"] - means["unsafe"]).mean(axis=0)
    tokens = np.concatenate([x[keep] for x, keep in sides.values()])
    spread = np.cov(tokens.T, bias=True)
    spread += 0.05 * np.trace(spread) / len(spread) * np.eye(len(spread))
    w = np.linalg.solve(spread, d)
    np.testing.assert_allclose(
        found.direction, w * np.linalg.norm(d) / np.linalg.norm(w), rtol=1e-4, atol=1e-6
    )
    with found.edit(2.0).applied(vlm):
        after = stream(vlm, tuples, "safe", encoder, 0)[0]
    moved = after - sides["safe"][0]
    np.testing.assert_allclose(moved, np.broadcast_to(2 * found.direction, moved.shape), atol=1e-4)


def stream(vlm, tuples, side, encoder, layer):
    seen = {}
    with torch.inference_mode(), capture_blocks(vlm.model, encoder, seen.__setitem__):
        if encoder == "text":
            tokens = vlm.tokenize(getattr(tuples, f"{side}_texts"))
            vlm.encode_text(tokens)
            return seen[layer].double().numpy(), vlm.token_mask(tokens).numpy()
        vlm.encode_image(vlm.preprocess(getattr(tuples, f"{side}_images")))
    return seen[layer].double().numpy(), np.ones(seen[layer].shape[:2], dtype=bool)


def test_residual_shifts_refuse_what_is_not_there(tuples):
    vlm = tiny_clip()
    for options, words in (
        ({"layer": 2}, "layer"),
        ({"encoder": "image"}, "encoder"),
        ({"ridge": 0}, "ridge"),
    ):
        with pytest.raises(UwmError, match=words):
            fit_residual_shift(vlm, tuples, progress=False, **options)
