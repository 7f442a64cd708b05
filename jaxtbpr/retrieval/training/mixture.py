"""Which training pairs are wrong, from their losses: a two-component mixture, and consensus.

Pairs whose caption does not fit keep a high loss while a model learns, so the losses of an epoch
have two modes. Host code on NumPy arrays of one number per pair; nothing here is trained.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxtbpr.core.errors import InputError

THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Two Gaussians on a line; component 0 has the lower mean."""

    means: np.ndarray
    variances: np.ndarray
    weights: np.ndarray

    def probability_of_low(self, values: np.ndarray) -> np.ndarray:
        """Returns the posterior of the component of the lower mean, float64 [P]."""
        return np.exp(self._log_posterior(values))[:, 0]

    def _log_posterior(self, values: np.ndarray) -> np.ndarray:
        log = self._log_joint(values)
        return log - np.logaddexp(log[:, 0], log[:, 1])[:, None]

    def _log_joint(self, values: np.ndarray) -> np.ndarray:
        distance = (values[:, None] - self.means) ** 2 / self.variances
        return np.log(self.weights) - 0.5 * (distance + np.log(2 * np.pi * self.variances))


def fit_mixture(
    values: np.ndarray, *, iterations: int = 100, tolerance: float = 1e-4, floor: float = 1e-4
) -> Mixture:
    """Fits two Gaussians to `values` [P] by expectation-maximisation.

    It starts from the two halves about the middle of the range. iterations: at most; tolerance:
    change of the mean log-likelihood at which it stops; floor: of the variances. (RDE has 10, 1e-2
    and 5e-4, for heavy noise 100, 1e-4 and 1e-6.) Raises InputError for fewer than two values or
    values that are not finite.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            f"a mixture cannot be fitted to {len(values)} losses; it needs two or more, all finite."
        )
    low = (values <= 0.5 * (values.min() + values.max())).astype(np.float64)
    mixture = _maximise(values, np.stack([low, 1 - low], axis=1), floor)
    before = -np.inf
    for _ in range(iterations):
        log = mixture._log_joint(values)
        likelihood = np.mean(np.logaddexp(log[:, 0], log[:, 1]))
        if abs(likelihood - before) < tolerance:
            break
        before = likelihood
        mixture = _maximise(values, np.exp(mixture._log_posterior(values)), floor)
    order = np.argsort(mixture.means)
    return Mixture(mixture.means[order], mixture.variances[order], mixture.weights[order])


def clean_probability(losses: np.ndarray, *, monotone: bool = False, **options: Any) -> np.ndarray:
    """Returns for each pair the probability that it is right, float64 [P], from its loss.

    The losses are scaled to 0..1 first; where all are equal, all count as right. monotone: a
    loss beyond the two means counts as the mean, so that the wider component does not take the
    smallest losses, too: a smaller loss is never less right. options: of `fit_mixture`. DivideMix
    (Li et al., ICLR 2020, arXiv:2002.07394); SynTBPR's figure names such a mixture.
    """
    losses = np.asarray(losses, np.float64)
    span = np.ptp(losses)
    if span == 0:
        return np.ones(len(losses))
    scaled = (losses - losses.min()) / span
    mixture = fit_mixture(scaled, **options)
    return mixture.probability_of_low(np.clip(scaled, *mixture.means) if monotone else scaled)


def confident_consensus(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns weights 0 or 1 of pairs, float32 [P], from two views of their losses (RDE's CCD).

    first, second: `clean_probability` of the losses of two embeddings or directions. Where both
    agree on a pair, that counts; where they differ, a fair coin decides. Where one calls all pairs
    right, the hundredth of the lowest probability counts as wrong. Qin et al., CVPR 2024,
    arXiv:2308.09911.
    """
    one, other = _confident(first), _confident(second)
    coin = rng.random(len(one)) < 0.5
    return np.where(one == other, one, coin).astype(np.float32)


def _confident(probability: np.ndarray) -> np.ndarray:
    clean = probability > THRESHOLD
    return probability > np.quantile(probability, 0.01) if clean.all() else clean


def _maximise(values: np.ndarray, posterior: np.ndarray, floor: float) -> Mixture:
    counts = posterior.sum(axis=0) + 1e-12
    means = (posterior * values[:, None]).sum(axis=0) / counts
    spread = (posterior * (values[:, None] - means) ** 2).sum(axis=0) / counts
    return Mixture(means, spread + floor, counts / counts.sum())
