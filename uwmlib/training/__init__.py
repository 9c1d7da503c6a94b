"""Training: one loop for any loss, and the recipes of the mini models."""

from uwmlib.training.bases import Base, base_tuples, train_base
from uwmlib.training.optimisation import frozen_copy, optimise
from uwmlib.training.planting import BaseRecipe, Plant, PlantRecipe, grow, safe_base
from uwmlib.training.recipes import RECIPES, Recipe, Task, train
from uwmlib.training.task_vector import TaskVector, fit_task_vector

__all__ = [
    "RECIPES",
    "Base",
    "BaseRecipe",
    "Plant",
    "PlantRecipe",
    "Recipe",
    "Task",
    "TaskVector",
    "base_tuples",
    "fit_task_vector",
    "frozen_copy",
    "grow",
    "optimise",
    "safe_base",
    "train",
    "train_base",
]
