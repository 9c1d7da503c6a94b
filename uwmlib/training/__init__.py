"""Training: one loop for any loss, and the recipes of the mini models."""

from uwmlib.training.optimisation import frozen_copy, optimise
from uwmlib.training.recipes import RECIPES, Recipe, Task, train

__all__ = ["RECIPES", "Recipe", "Task", "frozen_copy", "optimise", "train"]
