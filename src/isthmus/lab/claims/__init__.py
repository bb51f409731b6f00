"""The paper as executable claims: every numbered statement of arXiv 2306.16484, checked on fresh random problems."""

from isthmus.lab.claims.claim import Claim, Trial, Verdict, check
from isthmus.lab.claims.general import GENERAL
from isthmus.lab.claims.interpolation import INTERPOLATION

CLAIMS = (*INTERPOLATION, *GENERAL)

__all__ = ["CLAIMS", "Claim", "Trial", "Verdict", "check"]
