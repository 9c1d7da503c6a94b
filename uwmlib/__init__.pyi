from .cache import Cache
from .editing import Scores, WeightEdit, gradient_scores, score
from .errors import UwmError
from .evaluation import Evaluation, embed_tuples, evaluate
from .methods import safe_shift
from .metrics import benign_use, compare, retrieval, safeground
from .models import Vlm, load_model
from .parameters import check_run, checked_parameters
from .profiles import profile, profile_of
from .tuples import BenignUses, Tuples, load_benign, load_tuples
from .zero_shot import load_zero_shot, zero_shot_set

__version__: str

__all__ = [
    "BenignUses",
    "Cache",
    "Evaluation",
    "Scores",
    "Tuples",
    "UwmError",
    "Vlm",
    "WeightEdit",
    "__version__",
    "benign_use",
    "check_run",
    "checked_parameters",
    "compare",
    "embed_tuples",
    "evaluate",
    "gradient_scores",
    "load_benign",
    "load_model",
    "load_tuples",
    "load_zero_shot",
    "profile",
    "profile_of",
    "retrieval",
    "safe_shift",
    "safeground",
    "score",
    "zero_shot_set",
]
