"""Ranks against exact brute force, ties included, and against the bounds that tie them to SafeGround."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from embedding_sets import NAMES, random_embeddings, sign_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics import DIRECTIONS, retrieval, safeground, wilson

GALLERIES = {  # query, own partner's set, what else is in the gallery
    "ts_vs": ("safe_text", "safe_image", None),
    "vs_ts": ("safe_image", "safe_text", None),
    "tu_vus": ("unsafe_text", "safe_image", "unsafe_image"),
    "vu_tus": ("unsafe_image", "safe_text", "unsafe_text"),
}


def in_blocks(chunk, **embeddings):
    """Retrieval with blocks of another size."""
    module = importlib.import_module("uwmlib.metrics.retrieval")  # its function hides it in the package
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        return retrieval(**embeddings)


def brute_force_ranks(similarity, n):
    """Better + other tied + 1, in plain Python; similarity(a, i, b, j): row i of set a and row j of set b."""
    ranks = {}
    for direction, (query, partner, rest) in GALLERIES.items():
        ranks[direction] = []
        for i in range(n):
            own = similarity(query, i, partner, i)
            others = [similarity(query, i, partner, j) for j in range(n) if j != i]
            if rest:
                others += [similarity(query, i, rest, j) for j in range(n)]
            better, tied = sum(each > own for each in others), sum(each == own for each in others)
            ranks[direction].append(better + tied + 1)
    return ranks


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 14), d=st.integers(1, 9), chunk=st.integers(1, 16), seed=st.integers(0, 10**6))
def test_ranks_equal_exact_integer_ranks_with_many_ties(n, d, chunk, seed):
    signs, embeddings = sign_embeddings(n, d, seed)
    lists = {name: rows.tolist() for name, rows in signs.items()}

    def dot(a, i, b, j):
        return sum(x * y for x, y in zip(lists[a][i], lists[b][j], strict=True))

    found = in_blocks(chunk, **embeddings)
    for direction, ranks in brute_force_ranks(dot, n).items():
        assert found.ranks[direction].tolist() == ranks


@pytest.mark.parametrize("chunk", [64, 100, 1024])
def test_duplicates_tie_exactly_wherever_they_stand(chunk):
    # 131 tuples drawn from 17 different rows per set: each pair of different rows has one similarity, read
    # from a table, so that the brute force sees exact ties where the product may have rounded twice.
    n, d, kinds = 131, 53, 17
    distinct = random_embeddings(kinds, d)
    generator = torch.Generator().manual_seed(3)
    kind = {name: torch.randint(0, kinds, (n,), generator=generator) for name in NAMES}
    unit = {name: torch.nn.functional.normalize(rows.double(), dim=1) for name, rows in distinct.items()}
    table = {(a, b): (unit[a] @ unit[b].T).tolist() for a in NAMES for b in NAMES}
    kinds_of = {name: each.tolist() for name, each in kind.items()}

    def similarity(a, i, b, j):
        return table[a, b][kinds_of[a][i]][kinds_of[b][j]]

    found = in_blocks(chunk, **{name: distinct[name][kind[name]] for name in NAMES})
    for direction, ranks in brute_force_ranks(similarity, n).items():
        assert found.ranks[direction].tolist() == ranks


def test_cosines_a_billionth_apart_are_no_tie_and_rounding_is_one():
    # From the query at 0 the items lie 45 degrees off, and 45 degrees less 1e-9: their cosines differ by 7e-10.
    query, far, near = (
        torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
        for angle in (0.0, math.pi / 4, math.pi / 4 - 1e-9)
    )
    parts = {"safe_text": query, "unsafe_text": query}
    assert retrieval(**parts, safe_image=near, unsafe_image=far).ranks["tu_vus"].item() == 1
    assert retrieval(**parts, safe_image=far, unsafe_image=near).ranks["tu_vus"].item() == 2
    assert retrieval(**parts, safe_image=near, unsafe_image=0.1 * near).ranks["tu_vus"].item() == 2


def test_hand_worked_unsafe_query():
    # The unsafe text (1, 0) has these cosines: safe images .8 (own) and .6, unsafe images 1 (own) and 0.
    found = retrieval(
        safe_text=torch.tensor([[0.8, 0.6], [0.6, 0.8]]),
        unsafe_text=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        safe_image=torch.tensor([[0.8, 0.6], [0.6, 0.8]]),
        unsafe_image=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    )
    assert found.ranks["tu_vus"].tolist() == [2, 2]
    assert found.ranks["ts_vs"].tolist() == [1, 1]
    assert found["tu_vus"].value == 0.0
    assert found.recall("tu_vus", 2).value == 100.0


def test_the_result_does_not_depend_on_the_chunk():
    embeddings = random_embeddings(75, 6)
    whole = in_blocks(1000, **embeddings)
    for chunk in (1, 7, 25, 74, 75):
        found = in_blocks(chunk, **embeddings)
        assert all(torch.equal(found.ranks[each], whole.ranks[each]) for each in DIRECTIONS)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 25), d=st.integers(1, 5), seed=st.integers(0, 10**6), ties=st.booleans())
def test_finding_the_safe_partner_implies_preferring_it(n, d, seed, ties):
    embeddings = sign_embeddings(n, d, seed)[1] if ties else random_embeddings(n, d, seed)
    found, scores = retrieval(**embeddings), safeground(**embeddings)
    assert not (found["tu_vus"].items & ~scores["p_u_t"].items).any()
    assert not (found["vu_tus"].items & ~scores["p_u_v"].items).any()


def test_recall_interval_and_table_follow_the_ranks():
    found = retrieval(**random_embeddings(40, 3))
    ranks = found.ranks["vs_ts"].tolist()
    for k in (1, 3, 5, 40):
        hits = [rank <= k for rank in ranks]
        score = found.recall("vs_ts", k)
        assert score.items.tolist() == hits
        assert score.value == pytest.approx(100 * sum(hits) / 40)
    lo, hi = wilson(sum(rank <= 3 for rank in ranks), 40)
    assert found.recall("vs_ts", 3).interval == pytest.approx((100 * lo, 100 * hi))
    assert found.recall("vs_ts", 40).value == 100.0
    assert dict(found) == {each: found.recall(each, 1) for each in DIRECTIONS}
    lines = str(found).splitlines()
    assert lines[1].split() == ["@1", "@5", "@10", "@20"]
    assert [line.split()[0] for line in lines[2:]] == list(DIRECTIONS)
    assert lines[3].split()[2] == f"{found.recall('vs_ts', 5).value:.1f}"
    assert repr(found) == f"Retrieval(n=40, ts_vs@1={found['ts_vs'].value:.1f})"


def test_bad_questions_and_embeddings_are_refused():
    embeddings = random_embeddings(3, 2)
    found = retrieval(**embeddings)
    with pytest.raises(UwmError, match="no direction 'tu_vs'"):
        found.recall("tu_vs", 1)
    for direction in (None, ["ts_vs"], {}):
        with pytest.raises(UwmError, match="no direction"):
            found.recall(direction, 1)
    with pytest.raises(UwmError, match="at least 1"):
        found.recall("ts_vs", 0)
    with pytest.raises(UwmError, match="Row 1 of unsafe_text"):
        retrieval(**{**embeddings, "unsafe_text": torch.tensor([[1.0, 1], [0, 0], [1, 1]])})
    with pytest.raises(UwmError, match=r"unsafe_image is \[4, 2\]"):
        retrieval(**{**embeddings, "unsafe_image": torch.ones(4, 2)})


@pytest.mark.parametrize("k", ["1", None, 1.5, math.nan, True])
def test_a_cut_off_that_is_no_whole_number_is_refused(k):
    with pytest.raises(UwmError, match="whole number"):
        retrieval(**random_embeddings(4, 3)).recall("ts_vs", k)
