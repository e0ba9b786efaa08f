"""Is a difference small enough not to matter? Two one-sided tests, and the posterior of the difference."""

import math
from typing import NamedTuple

import numpy as np
import scipy

from cnnjax.shapes import Float


class Equivalence(NamedTuple):
    """What paired differences say about a true difference theta and a margin; NaN below two of them.

    The probabilities are those of the posterior under the prior p(theta, sigma) proportional to 1 / sigma:
    a t distribution with n - 1 degrees of freedom around the mean (Gelman et al. 2013, section 3.2). They
    are not corrected for the number of contrasts.
    """

    margin: float
    p: float  # that |theta| is below the margin: the larger p of two one-sided t tests (Schuirmann 1987)
    positive: float  # P(theta > 0)
    above: float  # P(theta > margin)
    below: float  # P(theta < -margin)

    @classmethod
    def of(cls, differences: Float[np.ndarray, "n"], margin: float) -> "Equivalence":
        """Compare differences with a margin, in their unit."""
        n = len(differences)
        if n < 2:
            return cls(margin, math.nan, math.nan, math.nan, math.nan)
        mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(n)
        # Equal differences leave no doubt: the t distribution shrinks to a point.
        scale = max(float(error), np.finfo(float).tiny)
        positive, above, over = (
            float(scipy.stats.t.cdf((mean - bound) / scale, n - 1)) for bound in (0.0, margin, -margin)
        )
        # The p of each test is the posterior probability of what it rejects.
        return cls(margin, max(above, 1 - over), positive, above, 1 - over)
