"""Every method against every other on one model, from nothing: the tournament of chapter 18 on fewer tuples.

    python benchmarks/tournament.py [--model mini-ViT-L-14] [--threads 2] [--methods uwm safe-shift ...]

All entrants are fitted on the same calibration tuples, their strengths are found on validation tuples, and they are
measured once on test tuples, at 95% and 80% of the model's knowledge and at equal benign use. Nothing is cached.
Printed: the order by safe bias gained at each price, costs beside UWM's, and how long the whole took. On so few tuples
of one model the order says who is far ahead, and no more. All twenty took 145 s on two free cores (285 s of
processor).
"""

from __future__ import annotations

import argparse
import time

import torch

import uwmlib as uwm
from uwmlib import studies
from uwmlib.comparison import Place, benign_lost, ranking
from uwmlib.models import Vlm
from uwmlib.tuples import BenignUses, Tuples

SIZES = {"train": 400, "validation": 200, "test": 400}
USES = {"train": 200, "validation": 80, "test": 150}


def line(place: Place, found: studies.Tournament, unit: studies.Cost) -> str:
    """Return one row of the ranking; costs are ratios to UWM's."""
    name, setting = place.row.split(", ")[0], found.rows[place.row]
    cost = found.costs[name]
    beside = f"{cost.seconds / unit.seconds:7.2f} {cost.n_weights / unit.n_weights:8.2f}"
    beside += f" {cost.n_bytes / unit.n_bytes:8.2f}"
    kept, lost = setting["knowledge_kept"].value, benign_lost(setting)
    return (
        f"{name:18s} {place.gain.shown(2):>22s} {setting['gs'].value:6.1f} {kept:7.1f} {lost:7.1f} "
        f"{beside}  {place.verdict}"
    )


def report(found: studies.Tournament) -> None:
    """Print the ranking at each of the three prices."""
    heads = f"{'':18s} {'safe bias gained':>22s} {'GS':>6s} {'kept':>7s} {'benign':>7s}"
    heads += f" {'time':>7s} {'numbers':>8s} {'bytes':>8s}  against UWM"
    for which in ("95%", "80%", studies.SPARED):
        rows = found.at(which)
        if f"uwm, {which}" not in rows:
            print(f"\n{which}: UWM has no such strength here, so there is no order.")
            continue
        print(f"\n{which}\n{heads}")
        for place in ranking(found.rows, rows, rival=f"uwm, {which}"):
            print(line(place, found, found.costs["uwm"]))
    for row, strength in found.strengths.items():
        if strength is None:
            print(f"{row}: {found.reasons[row]}")
    for name, why in found.refused.items():
        print(f"{name}: {why}")


def loaded(model: str) -> tuple[Vlm, dict[str, Tuples], dict[str, BenignUses]]:
    """Return the model and its data."""
    tuples = {split: uwm.load_tuples("mini-visu", split=split, n=n) for split, n in SIZES.items()}
    uses = {split: uwm.load_benign("mini-visu", split=split, n=n) for split, n in USES.items()}
    return uwm.load_model(model), tuples, uses


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini-ViT-L-14")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=(), help="some of the entrants; UWM is always one")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    started = time.perf_counter()
    vlm, tuples, uses = loaded(given.model)
    arena = studies.Arena(
        vlm, tuples["validation"], tuples["test"], spared=uses["validation"], benign=uses["test"]
    )
    names = dict.fromkeys(("uwm", *given.methods)) if given.methods else ()
    methods = studies.entrants(benign=uses["train"], names=names)
    found = studies.measure_tournament(arena, methods, calibration=tuples["train"])
    report(found)
    sizes = ", ".join(f"{n} {split}" for split, n in SIZES.items())
    wall, processor = time.perf_counter() - started, time.process_time()
    print(f"\n{len(methods)} methods, {sizes}, {given.threads} threads:")
    print(f"{wall:.0f} s, {processor:.0f} s of processor with the start of Python")


if __name__ == "__main__":
    main()
