"""How much the slow proofs look at: a sample in ``make test``, everything in ``make proofs``."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")
WHOLE = os.environ.get("PROOFS") == "whole"


def of(sample: T, whole: T) -> T:
    """What the profile of this run says."""
    return whole if WHOLE else sample
