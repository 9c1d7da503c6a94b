"""Training of the mini models."""

from uwmlib.training.recipes import RECIPES, train

__all__ = ["RECIPES", "train"]
