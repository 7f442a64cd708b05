"""The tests check the shapes that losses, metrics and ranking state in their annotations."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxtbpr.retrieval.evaluation import metrics, ranking
from jaxtbpr.retrieval.training import losses

PAIRS, IDS = jnp.ones((4, 8)), jnp.arange(4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.nitc_loss(PAIRS, jnp.ones((4, 6)), IDS, 0.0),
        lambda: losses.nitc_loss(PAIRS, PAIRS, IDS[:3], 0.0),
        lambda: losses.nitc_loss(PAIRS, PAIRS, IDS, 0.0, weights=jnp.ones(3)),
        lambda: losses.citc_loss(PAIRS, jnp.ones((3, 8)), None, None),
        lambda: losses.simclr_loss(PAIRS, jnp.ones((4, 6))),
        lambda: losses.small_loss_weights(PAIRS, 0.5),
        lambda: losses.identity_loss(PAIRS, PAIRS, IDS[:3]),
        lambda: losses.ROBUST["gce"].row_loss(PAIRS, jnp.ones((4, 7), bool)),
        lambda: ranking.feature_similarity(np.ones((2, 8)), np.ones((5, 6))),
        lambda: ranking.Positives(np.zeros(4, np.int32), *np.zeros((2, 3), int), np.zeros(2, int)),
        lambda: metrics._per_query(np.ones((2, 2), int), None),
    ],
)
def test_a_wrong_shape_is_found_at_the_call(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_a_type_that_a_loss_does_not_take_is_found():
    with pytest.raises(jaxtyping.TypeCheckError, match="text_features"):
        losses.sdm_loss(PAIRS, jnp.ones((4, 8), int), IDS)
