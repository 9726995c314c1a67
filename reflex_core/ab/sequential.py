# SPDX-License-Identifier: Apache-2.0
"""A test of two success rates that may be looked at after every episode, and stopped whenever it has decided.

Under "both slots succeed equally often, at whatever rate" the chance that the test EVER decides is at most alpha,
however often the result is looked at and however episodes are shared between the slots, as long as the share does not depend on
outcomes yet to come. The price is more episodes than a test of a size fixed beforehand.

Evidence is the likelihood of what was seen under a mixture of all pairs of rates (mixture SPRT: Robbins, Statistical
methods related to the law of the iterated logarithm, Ann. Math. Stat. 41, 1970; Johari, Pekelis and Walsh, Always valid
inference, arXiv 1512.04922), over the largest likelihood that equal rates can give it (universal inference: Wasserman,
Ramdas and Balakrishnan, PNAS 117, 2020, arXiv 1912.11436). Under equal rates it is at most a non-negative martingale
that begins at 1, so that it exceeds 1/alpha with a chance of at most alpha (Ville). The mixture is Beta(1/2, 1/2) per
slot, whose regret is the smallest (Krichevsky and Trofimov, IEEE Trans. Inf. Theory 27, 1981).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.05
ROUNDS = 60
PATH_POINTS = 512


@dataclass(frozen=True, slots=True)
class Rate:
    """Successes out of trials."""

    successes: int = 0
    trials: int = 0

    def plus(self, success: bool) -> Rate:
        """Return the rate after one more trial."""
        return Rate(self.successes + success, self.trials + 1)

    @property
    def value(self) -> float:
        """The share of successes; 0.0 of nothing."""
        return self.successes / self.trials if self.trials else 0.0

    def log_likelihood(self, rate: float) -> float:
        """Return the natural logarithm of the probability of this sequence of outcomes at a success rate."""
        failures = self.trials - self.successes
        return _times_log(self.successes, rate) + _times_log(failures, 1 - rate)

    def log_mixture(self) -> float:
        """Return the log likelihood averaged over all rates with the weight Beta(1/2, 1/2)."""
        failures = self.trials - self.successes
        return _log_beta(self.successes + 0.5, failures + 0.5) - _log_beta(0.5, 0.5)


def _times_log(count: int, chance: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(chance) if chance > 0 else -math.inf


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)


def log_evidence(a: Rate, b: Rate) -> float:
    """Return the natural logarithm of the evidence against equal rates; 0 before the first outcome."""
    pooled = Rate(a.successes + b.successes, a.trials + b.trials)
    return a.log_mixture() + b.log_mixture() - pooled.log_likelihood(pooled.value)


def difference_interval(a: Rate, b: Rate, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the confidence interval of (rate of a minus rate of b); valid at any time, as it inverts the sequential test.

    The interval is the set of all d whose null hypothesis "a is d above b" has not been rejected; over time it misses the
    true difference with a probability of at most alpha. The set is an interval, because the profile likelihood falls to
    both sides of its peak.
    """
    if a.trials == 0 or b.trials == 0:
        return -1.0, 1.0
    least = a.log_mixture() + b.log_mixture() + math.log(alpha)
    peak = a.value - b.value
    return _edge(a, b, least, peak, -1.0), _edge(a, b, least, peak, 1.0)


def _edge(a: Rate, b: Rate, least: float, inside: float, outside: float) -> float:
    if _profile(a, b, outside) >= least:
        return outside
    for _ in range(ROUNDS):
        middle = (inside + outside) / 2
        if _profile(a, b, middle) >= least:
            inside = middle
        else:
            outside = middle
    return outside


def _profile(a: Rate, b: Rate, difference: float) -> float:
    """Return the largest log likelihood of both where a's rate is `difference` above b's; concave in b's rate."""
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)

    def at(rate: float) -> float:
        return a.log_likelihood(min(1.0, max(0.0, rate + difference))) + b.log_likelihood(rate)

    best = max(at(low), at(high))
    for _ in range(ROUNDS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        at_left, at_right = at(left), at(right)
        best = max(best, at_left, at_right)
        if at_left < at_right:
            low = left
        else:
            high = right
    return best


class SequentialTest:
    """Takes outcomes one by one, in the order in which they became known."""

    def __init__(self, alpha: float = ALPHA) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
        self.alpha = alpha
        self.rates = {"a": Rate(), "b": Rate()}
        self.decided_at: int | None = None
        self.better: str | None = None  # the slot that had succeeded more often when that was decided
        self._best = 0.0
        self._path: list[tuple[int, float]] = []
        self._stride = 1

    def add(self, slot: str, success: bool) -> None:
        """Count one episode of slot a or b."""
        self.rates[slot] = self.rates[slot].plus(success)
        now = log_evidence(self.rates["a"], self.rates["b"])
        self._best = max(self._best, now)
        if self.decided_at is None and self.p <= self.alpha:
            self.decided_at = self.episodes
            self.better = "a" if self.rates["a"].value > self.rates["b"].value else "b"
        self._keep(now)

    @property
    def episodes(self) -> int:
        """How many episodes it has seen."""
        return sum(rate.trials for rate in self.rates.values())

    @property
    def p(self) -> float:
        """Always-valid p-value: one over the strongest evidence so far."""
        return math.exp(-self._best)

    @property
    def path(self) -> tuple[tuple[int, float], ...]:
        """(episodes, log evidence) as it went, thinned out to at most 512 points."""
        return tuple(self._path)

    def _keep(self, evidence: float) -> None:
        if self.episodes % self._stride:
            return
        self._path.append((self.episodes, evidence))
        if len(self._path) > PATH_POINTS:
            self._stride *= 2
            self._path = [point for point in self._path if point[0] % self._stride == 0]
