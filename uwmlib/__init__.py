"""Measure and edit the safety of vision-language models: SafeGround and Unsafe Weights Manipulation.

The data flow in one direction: tuples -> model -> one calibration pass -> selection -> edit -> measurement -> result
beside the paper's. The names are those of `__init__.pyi`; each is loaded on first use, so that `import uwmlib` costs
nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
