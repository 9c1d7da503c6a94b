"""Import torchvision even where its compiled operators do not match the installed torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

# Operators that torchvision's Python code registers a kernel for while it is being imported.
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_torchvision() -> ModuleType:
    """Return torchvision; declare the operators it misses if its plain import fails for want of them.

    The wheel of torchvision on PyPI is built for a CUDA torch. Over a CPU torch its compiled library does not
    load and `import torchvision` dies with "operator torchvision::nms does not exist", although open_clip and
    transformers only want its Python image transforms. Declaring the operators (without a kernel) lets the
    import pass. Where the wheels match, the first import succeeds and nothing is touched.

    Raises
    ------
    ImportError
        If torchvision is not installed.
    RuntimeError
        If the import fails for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)
    # The failed import leaves submodules behind that refer to a torchvision which no longer exists.
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    return importlib.import_module("torchvision")
