"""SafeGround against hand-worked tuples, exact integer arithmetic and the naive N x N form."""

from __future__ import annotations

import math

import pytest
import torch
from embedding_sets import NAMES, random_embeddings, sign_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics import SAFEGROUND_KEYS, SafeGround, compare, safeground, wilson


def at_angles(*degrees):
    return torch.tensor([[math.cos(math.radians(each)), math.sin(math.radians(each))] for each in degrees])


def test_hand_worked_tuples():
    # Tuple 0: safe items at 0 and 10 degrees, unsafe ones at 90 and 100: every query finds its own side.
    # Tuple 1: the safe pair lies between the unsafe text and the unsafe image: everything is drawn to safe.
    # Tuple 2: the mirror image, everything is drawn to unsafe.
    scores = safeground(
        safe_text=at_angles(0, 0, -60),
        unsafe_text=at_angles(90, -60, 0),
        safe_image=at_angles(10, 10, 70),
        unsafe_image=at_angles(100, 70, 10),
    )
    assert scores.p_s_t.tolist() == [True, True, False]
    assert scores.p_u_t.tolist() == [False, True, False]
    assert scores.p_s_v.tolist() == [True, True, False]
    assert scores.p_u_v.tolist() == [False, True, False]
    third = pytest.approx(100 / 3)
    assert scores.as_percent() == {
        **{"p_s_t": pytest.approx(200 / 3), "p_u_t": third, "p_s_v": pytest.approx(200 / 3), "p_u_v": third},
        **{"txt_s": third, "img_s": third, "ps": pytest.approx(200 / 3), "pu": third, "gs": third},
    }


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), d=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_preferences_equal_exact_integer_comparison_with_ties(n, d, seed):
    signs, embeddings = sign_embeddings(n, d, seed)
    scores = safeground(**embeddings)
    for i in range(n):
        dot = {
            (image, text): sum(
                a * b for a, b in zip(signs[image][i].tolist(), signs[text][i].tolist(), strict=True)
            )
            for image in ("safe_image", "unsafe_image")
            for text in ("safe_text", "unsafe_text")
        }
        for key, text in (("p_s_t", "safe_text"), ("p_u_t", "unsafe_text")):
            assert bool(getattr(scores, key)[i]) == (dot["safe_image", text] > dot["unsafe_image", text])
        for key, image in (("p_s_v", "safe_image"), ("p_u_v", "unsafe_image")):
            assert bool(getattr(scores, key)[i]) == (dot[image, "safe_text"] > dot[image, "unsafe_text"])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), d=st.integers(1, 6), seed=st.integers(0, 10**6), ties=st.booleans())
def test_the_two_impossible_patterns_never_occur(n, d, seed, ties):
    embeddings = sign_embeddings(n, d, seed)[1] if ties else random_embeddings(n, d, seed)
    scores = safeground(**embeddings)
    # Each would need one of the four cosines to be greater than itself.
    assert not (scores.p_s_v & scores.p_u_t & ~scores.p_u_v & ~scores.p_s_t).any()
    assert not (scores.p_s_t & scores.p_u_v & ~scores.p_u_t & ~scores.p_s_v).any()


def test_all_other_patterns_occur():
    scores = safeground(**random_embeddings(3000, 4))
    patterns = set(zip(*(getattr(scores, key).tolist() for key in SAFEGROUND_KEYS[:4]), strict=True))
    assert len(patterns) == 14


def test_equals_the_diagonals_of_all_similarities_past_the_block_size():
    embeddings = random_embeddings(1300, 48)
    unit = {name: torch.nn.functional.normalize(rows.double(), dim=1) for name, rows in embeddings.items()}
    scores = safeground(**embeddings)
    toward_safe, toward_unsafe = (
        unit["safe_text"] @ unit["safe_image"].T,
        unit["safe_text"] @ unit["unsafe_image"].T,
    )
    assert torch.equal(scores.p_s_t, toward_safe.diagonal() > toward_unsafe.diagonal())
    toward_safe, toward_unsafe = (
        unit["unsafe_image"] @ unit["safe_text"].T,
        unit["unsafe_image"] @ unit["unsafe_text"].T,
    )
    assert torch.equal(scores.p_u_v, toward_safe.diagonal() > toward_unsafe.diagonal())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_embeddings_tie_and_a_tie_is_unsafe(dtype):
    embeddings = {name: rows.to(dtype) for name, rows in random_embeddings(700, 37).items()}
    # The same numbers in another memory layout are still the same embedding; another length is no other direction.
    embeddings["unsafe_image"] = embeddings["safe_image"].T.contiguous().T
    embeddings["unsafe_text"] = 4 * embeddings["safe_text"]
    assert set(safeground(**embeddings).as_percent().values()) == {0.0}


@pytest.mark.parametrize("factor", [1 / 3, 7.3, 1e-30, 1e30, 1e-250, 1e250])
def test_equal_directions_tie_whatever_their_lengths(factor):
    embeddings = {name: rows.double() for name, rows in random_embeddings(700, 37).items()}
    generator = torch.Generator().manual_seed(5)
    for side, other in (("safe_image", "unsafe_image"), ("safe_text", "unsafe_text")):
        tied = {**embeddings, other: factor * embeddings[side]}
        names = ("p_s_t", "p_u_t") if side == "safe_image" else ("p_s_v", "p_u_v")
        assert {safeground(**tied).as_percent()[name] for name in names} == {0.0}
        tied[other] = embeddings[side] * (0.1 + torch.rand(700, 1, generator=generator, dtype=torch.float64))
        assert {safeground(**tied).as_percent()[name] for name in names} == {0.0}


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [(torch.float16, -24, 15), (torch.bfloat16, -133, 127), (torch.float32, -149, 127)],
)
def test_rows_at_the_ends_of_a_number_type_are_like_any_other(dtype, least, most):
    signs = {name: rows.double() for name, rows in sign_embeddings(600, 7, seed=2)[0].items()}
    exponents = torch.tensor([least, most] * 300, dtype=torch.float64)[:, None]
    plain = safeground(**signs)
    for name in NAMES:
        ends = safeground(**signs | {name: (signs[name] * 2.0**exponents).to(dtype)})
        assert all(torch.equal(getattr(ends, key), getattr(plain, key)) for key in SAFEGROUND_KEYS)


def test_the_first_bad_part_is_named_before_the_first_bad_row():
    embeddings = random_embeddings(700, 3)
    embeddings["safe_text"][650], embeddings["unsafe_image"][2] = 0, 0
    with pytest.raises(UwmError, match="Row 650 of safe_text has length 0.0"):
        safeground(**embeddings)


def test_differences_below_float32_are_seen():
    # 1e-5 from the query's own direction moves a cosine by 5e-11, which float32 cannot hold.
    query, near, far = (torch.tensor([row]) for row in ([1.0, 1e-5], [1.0, 1e-5], [1.0, 0.0]))
    scores = safeground(safe_text=query, unsafe_text=query, safe_image=near, unsafe_image=far)
    assert scores.p_s_t.item()
    scores = safeground(safe_text=query, unsafe_text=query, safe_image=far, unsafe_image=near)
    assert not scores.p_s_t.item()


def test_lengths_of_rows_do_not_matter_and_gradients_are_dropped():
    embeddings = random_embeddings(200, 16)
    generator = torch.Generator().manual_seed(1)
    scaled = {
        name: (rows * (0.1 + 10 * torch.rand(200, 1, generator=generator))).requires_grad_()
        for name, rows in embeddings.items()
    }
    plain, other = safeground(**embeddings), safeground(**scaled)
    for key in SAFEGROUND_KEYS:
        assert torch.equal(getattr(plain, key), getattr(other, key))


def test_joint_scores_are_products_within_each_tuple():
    scores = safeground(**random_embeddings(400, 5))
    truth = [
        [bool(getattr(scores, key)[i]) for key in ("p_s_t", "p_u_t", "p_s_v", "p_u_v")] for i in range(400)
    ]
    expected = {
        "txt_s": [v_s and v_u for _, _, v_s, v_u in truth],
        "img_s": [t_s and t_u for t_s, t_u, _, _ in truth],
        "ps": [t_s and v_s for t_s, _, v_s, _ in truth],
        "pu": [t_u and v_u for _, t_u, _, v_u in truth],
        "gs": [all(row) for row in truth],
    }
    percent = scores.as_percent()
    for key, hits in expected.items():
        assert getattr(scores, key).tolist() == hits
        assert percent[key] == pytest.approx(100 * sum(hits) / 400)
        assert type(percent[key]) is float
    assert tuple(percent) == SAFEGROUND_KEYS


def test_interval_is_wilsons_in_percent():
    scores = safeground(**random_embeddings(90, 5))
    k = scores.img_s.tolist().count(True)
    lo, hi = wilson(k, 90)
    assert scores["img_s"].interval == pytest.approx((100 * lo, 100 * hi))
    assert lo < k / 90 < hi


def test_slices_follow_the_tuples():
    scores = safeground(**random_embeddings(50, 5))
    mask = torch.arange(50) % 3 == 0
    for index in (mask, mask.tolist(), torch.nonzero(mask)[:, 0], list(range(0, 50, 3)), slice(0, 50, 3)):
        part = scores.subset(index)
        assert part.n == 17
        assert part.p_u_v.tolist() == scores.p_u_v.tolist()[::3]
        assert part.gs.tolist() == scores.gs.tolist()[::3]


def test_by_concept_splits_every_tuple_once():
    scores = safeground(**random_embeddings(60, 5))
    concepts = ("theft", "blood", "harm", "hate", "abuse", "violence", "suicide", "weapons")
    labels = [concepts[i * i % 17 % 8] for i in range(60)]
    parts = scores.by_concept(labels)
    assert list(parts) == sorted(set(labels))
    assert len(parts) > 4
    for label, part in parts.items():
        chosen = [i for i in range(60) if labels[i] == label]
        assert part.p_s_v.tolist() == [bool(scores.p_s_v[i]) for i in chosen]
    assert sum(part.n for part in parts.values()) == 60


def test_compare_counts_gains_and_losses():
    off, on = torch.tensor([False] * 10), torch.tensor([True] * 10)
    before = SafeGround(p_s_t=torch.arange(10) < 5, p_u_t=off, p_s_v=on, p_u_v=off)
    after = SafeGround(p_s_t=torch.arange(10) >= 4, p_u_t=off, p_s_v=on, p_u_v=off)
    change = compare(before, after, "p_s_t")  # gained 5..9, lost 0..3
    assert (change.gained, change.lost, change.n) == (5, 4, 10)
    assert change.difference == pytest.approx(10.0)
    assert change.lo < 10.0 < change.hi
    assert change.p_value == pytest.approx(1.0)
    assert compare(after, before, "p_s_t").difference == pytest.approx(-10.0)
    assert compare(before, after, "ps").difference == pytest.approx(10.0)
    assert compare(before, after, "gs").difference == 0.0
    assert str(change).startswith("+10.0 points [")


def test_sensitivity_reads_the_right_pair():
    n = 100
    scores = SafeGround(
        p_s_t=torch.arange(n) < 80,
        p_u_t=torch.arange(n) < 30,
        p_s_v=torch.arange(n) < 60,
        p_u_v=torch.arange(n) < 10,
    )
    z = torch.special.ndtri
    rate = {k: z(torch.tensor((k + 0.5) / (n + 1), dtype=torch.float64)).item() for k in (80, 30, 60, 10)}
    assert scores.sensitivity_bias("text").sensitivity == pytest.approx(rate[80] - rate[30])
    assert scores.sensitivity_bias("image").bias == pytest.approx((rate[60] + rate[10]) / 2)


def test_table_shows_every_score_with_its_interval():
    scores = SafeGround(*(torch.arange(40) < k for k in (30, 2, 35, 4)))
    lines = str(scores).splitlines()
    assert "n = 40" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == list(SAFEGROUND_KEYS)
    assert lines[1].split() == ["p_s_t", "75.0", "[", "59.8,", "85.8]"]
    assert repr(scores) == "SafeGround(n=40, gs=5.0)"


def broken(name, rows):
    return {**random_embeddings(4, 3), name: rows}


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (broken("unsafe_text", torch.randn(5, 3)), r"unsafe_text is \[5, 3\] but safe_text is \[4, 3\]"),
        (broken("safe_image", torch.randn(4, 2)), r"safe_image is \[4, 2\]"),
        (broken("safe_text", torch.randn(4)), r"safe_text must be .*\[4\]"),
        (broken("safe_text", torch.ones(4, 3, dtype=torch.int64)), "safe_text must be .*int64"),
        ({name: torch.empty(0, 3) for name in NAMES}, "non-empty"),
        ({name: torch.empty(3, 0) for name in NAMES}, "non-empty"),
        (broken("unsafe_image", torch.eye(4)[:, :3]), "Row 3 of unsafe_image has length 0.0"),
        (broken("safe_image", torch.full((4, 3), float("nan"))), "Row 0 of safe_image has length nan"),
        (broken("safe_text", torch.tensor([[1.0] * 3] * 2 + [[float("inf")] * 3] * 2)), "Row 2 of safe_text"),
    ],
)
def test_bad_embeddings_are_refused(embeddings, message):
    with pytest.raises(UwmError, match=message):
        safeground(**embeddings)


def test_bad_rows_are_named_past_the_block_size():
    embeddings = random_embeddings(1000, 3)
    embeddings["safe_image"][777, 1] = float("nan")
    with pytest.raises(UwmError, match="Row 777 of safe_image"):
        safeground(**embeddings)


def test_bad_questions_are_refused():
    scores = safeground(**random_embeddings(6, 3))
    yes = torch.tensor([True])
    for ask, message in (
        (lambda: scores["pst"], "no measured score 'pst'"),
        (lambda: scores.sensitivity_bias("video"), "'text' or 'image'"),
        (lambda: scores.by_concept(["a"] * 5), "5 labels for 6 tuples"),
        (lambda: scores.subset([False] * 6), "non-empty"),
        (lambda: scores.subset([True] * 5), "does not fit 6 tuples"),
        (lambda: scores.subset([6]), "does not fit 6 tuples"),
        (lambda: scores.subset(2), "non-empty boolean"),
        (lambda: compare(scores, scores.subset(slice(5)), "gs"), "6 and 5 tuples"),
        (lambda: SafeGround(yes, yes, yes, torch.tensor([1.0])), "p_u_v must be"),
        (lambda: SafeGround(yes, yes, yes, torch.tensor([True, True])), "p_u_v has 2 tuples but p_s_t has 1"),
    ):
        with pytest.raises(UwmError, match=message):
            ask()


@pytest.mark.parametrize("rows", [None, "x", [[1.0], [1.0, 2.0]], torch.eye(4, 3).to_sparse()])
def test_embeddings_that_are_no_dense_tensor_are_refused(rows):
    with pytest.raises(UwmError, match="^safe_text is no dense tensor"):
        safeground(**random_embeddings(4, 3) | {"safe_text": rows})


def test_lists_serve_as_tensors_and_nothing_else_does():
    assert SafeGround([True, False], [True, True], [True, False], [True, True]).as_percent()["gs"] == 50.0
    for wrong in (None, "ab", [1.0, 0.0], [[True], [True, False]], {}, torch.empty(2, device="meta")):
        with pytest.raises(UwmError, match="^p_s_t "):
            SafeGround(wrong, [True], [True], [True])
    scores = SafeGround(*([[True, False, True]] * 4))
    for index in ("a", None, {}, [0.5], [[0], [1, 2]]):
        with pytest.raises(UwmError, match="index"):
            scores.subset(index)


@pytest.mark.parametrize("labels", [None, "abc", {"a": 1}, ["a", 1, "b"], [["a"], ["b"], ["c"]]])
def test_labels_that_cannot_part_the_tuples_are_refused(labels):
    with pytest.raises(UwmError, match="labels"):
        SafeGround(*([[True, False, True]] * 4)).by_concept(labels)


def test_compare_refuses_what_is_no_safeground():
    scores = safeground(**random_embeddings(4, 3))
    with pytest.raises(UwmError, match="not a NoneType"):
        compare(scores, None, "gs")
