"""Training: one loop for any loss, and the recipes of the mini models."""

from uwmlib.training.optimisation import frozen_copy, optimise
from uwmlib.training.recipes import RECIPES, Recipe, train

__all__ = ["RECIPES", "Recipe", "frozen_copy", "optimise", "train"]
