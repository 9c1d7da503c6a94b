"""Simple readers: what gives away the unsafe side of a mini world without any understanding of it."""

from __future__ import annotations

import numpy as np

from uwmlib.mini.pairs import SPLITS, draw_tuples
from uwmlib.mini.worlds import World

SIDES = ("safe", "unsafe")
STEP = 30  #: grey levels between neighbouring pixels that make an edge


def colours_and_edges(pictures: np.ndarray) -> np.ndarray:
    """Return the shares of 64 colours and six figures of edge energy.

    Parameters
    ----------
    pictures : uint8 array, shape (N, H, W, 3)

    Returns
    -------
    numpy.ndarray, shape (N, 70)
    """
    coarse = pictures // 64
    numbers = (coarse[..., 0] * 16 + coarse[..., 1] * 4 + coarse[..., 2]).reshape(len(pictures), -1)
    shares = np.stack([np.bincount(row, minlength=64) for row in numbers]) / numbers.shape[1]
    grey = pictures.astype(float).mean(-1)
    steps = [abs(np.diff(grey, axis=axis)) for axis in (1, 2)]
    edges = [each.mean((1, 2)) for step in steps for each in (step, step**2, step > STEP)]
    return np.concatenate([shares, np.stack(edges, axis=1)], axis=1)


def simple_readers(world: World, *, n: int = 4000) -> dict[str, float]:
    """Return how often logistic regressions tell the sides of the test split apart, in percent.

    Parameters
    ----------
    world : World
    n : int
        Tuples of the training split to fit on.

    Returns
    -------
    dict
        "words": a bag of words on captions; "colours": `colours_and_edges` on pictures. 50 is chance.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = {"train": n, "test": SPLITS["test"]}
    drawn = {split: draw_tuples(split, np.arange(count), world=world) for split, count in rows.items()}
    labels = {split: np.repeat([0, 1], count) for split, count in rows.items()}
    texts = {split: [text for side in SIDES for text in drawn[split][f"{side}_texts"]] for split in rows}
    pictures = {split: [drawn[split][f"{side}_images"] for side in SIDES] for split in rows}
    features = {split: colours_and_edges(np.concatenate(parts)) for split, parts in pictures.items()}
    readers = {
        "words": (CountVectorizer(token_pattern="[a-z]+"), texts),
        "colours": (StandardScaler(), features),
    }
    found = {}
    for name, (reading, items) in readers.items():
        reader = make_pipeline(reading, LogisticRegression(max_iter=3000))
        reader.fit(items["train"], labels["train"])
        found[name] = 100 * float(reader.score(items["test"], labels["test"]))
    return found
