"""Vision-language models behind one interface."""

from uwmlib.models.loading import load_model
from uwmlib.models.sites import Site
from uwmlib.models.vlm import Vlm

__all__ = ["Site", "Vlm", "load_model"]
