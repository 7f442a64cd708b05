"""The training objective: the weighted sum of the losses that are enabled.

A step computes it in this order (`Objective`):

1. `features`: the towers run once on each image and each caption, whatever the number of losses;
2. for each caption of an image, the contrastive losses (`_of_pairs`):
   a. channels are masked before the features are normalised, with one mask for both modalities;
   b. the weight of a pair is that of its data, and 0 where its loss is not among the smallest;
   c. each loss is computed on global arrays, so that every device sees the captions of all;
3. the mean of these over the captions;
4. the losses with heads (`_of_heads`), on the first caption;
5. the sum of all parts by their weights.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.dtypes import Array
from jaxtbpr.retrieval.clip.model import Clip, ClipConfig
from jaxtbpr.retrieval.training import heads
from jaxtbpr.retrieval.training.losses import (
    classification,
    contrastive,
    robust,
    similarity,
    views,
)

Arrays = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss:
    """A loss between images and one caption of each.

    name: of its weight among the options and in an objective, and of its part in the metrics.
    title, default: of that option. of(objective, alpha): returns the loss, a function of features,
    ids and logit scale (see `losses`); alpha: this step's fraction of soft labels.
    is_weighted: whether it takes weights of pairs. is_enough: whether a model can be trained with
    it alone. by_rows: whether it can be computed from some rows of the similarities at a time.
    views: whether it takes a second view of the image, too (`multi_view`).
    """

    name: str
    title: str
    of: Callable[["Objective", Any], similarity.Loss]
    default: float = 0.0
    is_weighted: bool = True
    is_enough: bool = True
    by_rows: bool = True
    views: bool = False


@dataclasses.dataclass(frozen=True)
class HeadLoss:
    """A loss with a network (head) on top of the towers.

    name, title, default, by_rows: as of a contrastive loss. head: the network's name;
    make(objective): returns it; reads: "row" for each array [B, D] that it reads, "tokens" for
    [B, L, D]. of(objective, mesh, head, features, batch): returns the loss, with head(*arrays).
    """

    name: str
    title: str
    head: str
    make: Callable[["Objective"], nn.Module]
    reads: tuple[str, ...]
    of: Callable[["Objective", Mesh, Callable, Arrays, Arrays], Array]
    default: float = 0.0
    by_rows: bool = True


def _nitc(objective: "Objective", alpha: Any) -> similarity.Loss:
    return functools.partial(contrastive.nitc_loss, **_rows(objective), **_soft(objective, alpha))


def _ritc(objective: "Objective", alpha: Any) -> similarity.Loss:
    settings = _rows(objective) | _soft(objective, alpha)
    return functools.partial(contrastive.ritc_loss, eps=objective.ritc_eps, **settings)


def _sdm(objective: "Objective", alpha: Any) -> similarity.Loss:
    return functools.partial(contrastive.sdm_loss, **_rows(objective))


def _robust(objective: "Objective", alpha: Any) -> similarity.Loss:
    return functools.partial(robust.ROBUST[objective.robust_loss], **_rows(objective))


def _rows(objective: "Objective") -> dict[str, Any]:
    return {"at_once": objective.loss_rows}


def _soft(objective: "Objective", alpha: Any) -> dict[str, Any]:
    return {"alpha": alpha, "soft_labels": objective.soft_labels}


def _simclr(objective: "Objective", mesh: Mesh, head, features: Arrays, batch: Arrays):
    loss = functools.partial(views.simclr_loss, temperature=objective.simclr_temperature)
    return similarity.global_loss(mesh, loss)(head(features["view_1"]), head(features["view_2"]))


def _identity(objective: "Objective", mesh: Mesh, head, features: Arrays, batch: Arrays):
    logits = head(features["image"]), head(features["text"])
    return classification.identity_loss(*logits, batch["identity"])


def _mlm(objective: "Objective", mesh: Mesh, head, features: Arrays, batch: Arrays):
    logits = head(features["text_tokens"], features["image_tokens"])
    return classification.masked_word_loss(logits, batch["labels"])


CONTRASTIVE = (
    ContrastiveLoss("nitc", "N-ITC", _nitc, default=1.0, views=True),
    ContrastiveLoss("ritc", "R-ITC", _ritc),
    ContrastiveLoss(
        "citc", "C-ITC", lambda objective, alpha: contrastive.citc_loss,
        is_weighted=False, is_enough=False, by_rows=False,
    ),
    ContrastiveLoss("sdm", "SDM", _sdm),
    ContrastiveLoss("robust", "the loss that robust_loss names", _robust),
)  # fmt: skip
WITH_HEADS = (
    HeadLoss(
        "simclr", "SimCLR between two strong views", "view",
        lambda objective: heads.ViewHead(objective.simclr_hidden), ("row",), _simclr, by_rows=False,
    ),
    HeadLoss(
        "identity", "identity classification", "identity",
        lambda objective: heads.IdentityHead(objective.identities), ("row",), _identity,
    ),
    HeadLoss(
        "mlm", "masked language modelling", "words",
        lambda objective: heads.MaskedWordHead(objective.vocab_size, objective.mlm_layers),
        ("tokens", "tokens"), _mlm,
    ),
)  # fmt: skip
LOSSES = (*CONTRASTIVE, *WITH_HEADS)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The weights of the losses (0 = off) and their settings.

    nitc, ritc, citc, sdm, simclr, identity, mlm: weights, see `losses`. robust: weight of the loss
    `robust_loss`, one of robust.ROBUST. multi_view: N-ITC of a second view of the image, too.
    captions: per image; every contrastive loss is the mean over them of the loss with each one,
    so that an image is encoded once for all (DreamLIP, arXiv:2403.17007, has this mean).
    soft_label_ratio: the fraction alpha of soft labels in the targets, by step; soft_labels: how
    they are computed; ritc_eps: added to the targets of R-ITC. small_loss_fraction: fraction of
    the pairs of a batch that count, those of the smallest N-ITC. channel_mask: rate of
    `robust.mask_channels`. simclr_temperature, simclr_hidden: of SimCLR and its head; identities:
    classes of the identity head; vocab_size, mlm_layers: of the word head.
    facts: slots by which captions match every image that they are true of, whoever it shows (as
    labels do in UniCL, arXiv:2204.03610); 0 = by identity alone.
    loss_rows: rows of the similarities that a device holds at a time; 0 = all its rows.

    SynTBPR: nitc 1, ritc 1 (soft labels by sigmoid, 0.005, eps 1e-8). TBPS-CLIP: nitc 1 with
    multi_view, ritc 1 (eps 1e-2), citc 0.1, simclr 0.4. IRRA: sdm 1, identity 1, mlm 1.
    """

    nitc: float = 1.0
    ritc: float = 0.0
    citc: float = 0.0
    sdm: float = 0.0
    robust: float = 0.0
    robust_loss: str = "smoothing"
    simclr: float = 0.0
    identity: float = 0.0
    mlm: float = 0.0
    multi_view: bool = False
    captions: int = 1
    facts: int = 0
    soft_label_ratio: optax.Schedule = lambda step: 0.0
    soft_labels: str = "sigmoid"
    ritc_eps: float = 1e-8
    small_loss_fraction: float = 1.0
    channel_mask: float = 0.0
    simclr_temperature: float = 0.1
    simclr_hidden: int = 128
    identities: int = 0
    vocab_size: int = 0
    mlm_layers: int = 4
    loss_rows: int = 0

    def heads(self) -> dict[str, nn.Module]:
        """Returns the networks that only these losses have, by name."""
        return {row.head: row.make(self) for row in WITH_HEADS if self.weight(row)}

    def weight(self, row: ContrastiveLoss | HeadLoss) -> float:
        """Returns the weight of a loss."""
        return getattr(self, row.name)

    def inputs(self, config: ClipConfig) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Returns {array of a batch: (its shape without the batch axis, its dtype)}."""
        image = ((*config.image_size, 3), jnp.uint8)
        tokens = ((config.text_length,), jnp.int32)
        shapes = {"image": image, "tokens": tokens, "identity": ((), jnp.int32)}
        shapes["weight"] = ((), jnp.float32)
        if self.multi_view:
            shapes["second"] = image
        if self.captions > 1:
            shapes["more"] = ((self.captions - 1, config.text_length), jnp.int32)
        if self.facts:
            shapes["shown"] = ((1 + self.facts,), jnp.int32)
            shapes["mentioned"] = ((self.captions, 1 + self.facts), jnp.int32)
        if self.simclr:
            shapes |= {"view_1": image, "view_2": image}
        if self.mlm:
            shapes |= {"masked": tokens, "labels": tokens}
        return shapes

    def features(self, model: Clip, params: Any, batch: Arrays) -> dict[str, jax.Array]:
        """Returns everything that the losses need of the towers, arrays [B, ...]."""

        def apply(method: Callable, *inputs, **options) -> Any:
            return model.apply({"params": params}, *inputs, method=method, **options)

        image = functools.partial(apply, Clip.encode_image)
        text = functools.partial(apply, Clip.encode_text)
        outputs = self._texts(text, batch)
        if self.mlm:
            outputs["image_tokens"] = image(batch["image"], every_token=True)
            outputs["text_tokens"] = text(batch["masked"], every_token=True)
            outputs["image"] = outputs["image_tokens"][:, 0]
        else:
            outputs["image"] = image(batch["image"])
        for name in ("second", "view_1", "view_2"):
            if name in batch:
                outputs[name] = image(batch[name])
        return outputs

    def _texts(self, text, batch: Arrays) -> dict[str, jax.Array]:
        """The features of all captions: "text" [B, D] and, if there are, "more" [B, n - 1, D]."""
        if self.captions == 1:
            return {"text": text(batch["tokens"])}
        tokens = jnp.concatenate([batch["tokens"][:, None], batch["more"]], axis=1)
        features = text(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)
        return {"text": features[:, 0], "more": features[:, 1:]}

    def __call__(
        self, mesh: Mesh, features: Arrays, batch: Arrays, params: Any, step, key
    ) -> dict[str, jax.Array]:
        """Returns {"loss", and each part by name}, scalars over the global batch.

        params: those of the heads and the logit scale; key: of this step's random draws.
        """
        scale = params["logit_scale"]
        each = [
            self._of_pairs(mesh, {**features, "text": text}, ids, batch["weight"], scale, step, key)
            for text, ids in self._captions(features, batch)
        ]
        parts = jax.tree.map(lambda *values: sum(values) / len(values), *each)
        parts |= self._of_heads(mesh, features, batch, params.get("heads", {}))
        total: Any = sum(getattr(self, name) * value for name, value in parts.items())
        return {"loss": total} | (parts if len(parts) > 1 else {})

    def _captions(self, features: Arrays, batch: Arrays) -> list[tuple[Array, Array]]:
        """(features [B, D], ids to match by) of the images' first, second, ... captions."""
        texts = [features["text"]]
        texts += [features["more"][:, n] for n in range(self.captions - 1)]
        if not self.facts:
            return [(text, batch["identity"]) for text in texts]
        mentioned = [batch["mentioned"][:, n] for n in range(self.captions)]
        labels: list[Array] = [jnp.stack([batch["shown"], one], axis=1) for one in mentioned]
        return list(zip(texts, labels, strict=True))

    def _of_pairs(self, mesh: Mesh, features: Arrays, ids, weight, scale, step, key) -> dict:
        """The contrastive losses between images and one caption of each, which match by `ids`."""
        image, text, second = features["image"], features["text"], features.get("second")
        if self.channel_mask:
            mask = functools.partial(robust.mask_channels, key, rate=self.channel_mask)
            second = second if second is None else mask(second, text)[0]
            image, text = mask(image, text)
        weights = self._weights(mesh, (image, text, ids), scale, weight)
        parts = {}
        for row in filter(self.weight, CONTRASTIVE):
            loss = similarity.global_loss(mesh, row.of(self, self.soft_label_ratio(step)))
            images: tuple[Array | None, ...] = (image,)
            if row.views and self.multi_view:
                loss, images = contrastive.multi_view(loss), (image, second)
            options = {"weights": weights} if row.is_weighted else {}
            parts[row.name] = loss(*images, text, ids, scale, **options)
        return parts

    def _of_heads(self, mesh: Mesh, features: Arrays, batch: Arrays, params: Any) -> dict:
        def head(row, *arrays):
            return row.make(self).apply({"params": params[row.head]}, *arrays)

        return {
            row.name: row.of(self, mesh, functools.partial(head, row), features, batch)
            for row in filter(self.weight, WITH_HEADS)
        }

    def _weights(self, mesh: Mesh, pairs, scale, weight) -> jax.Array:
        """The weight of each pair, and 0 where its loss is too large (small-loss trick)."""
        if self.small_loss_fraction >= 1:
            return weight
        axes = mesh.axis_names

        def select(*arrays):
            rows = contrastive.pair_losses(*arrays, axis_name=axes)
            return robust.small_loss_weights(rows, self.small_loss_fraction, axis_name=axes)

        return weight * meshes.on_rows(mesh, select, P(axes))(*pairs, scale)


def init_heads(objective: Objective, embed_dim: int, key: jax.Array) -> dict[str, Any]:
    """Returns new parameters of the heads, {} where the objective has none."""
    arrays = {"row": jnp.zeros((1, embed_dim)), "tokens": jnp.zeros((1, 2, embed_dim))}
    inputs = {row.head: [arrays[name] for name in row.reads] for row in WITH_HEADS}
    return {
        name: head.init(jax.random.fold_in(key, n), *inputs[name])["params"]
        for n, (name, head) in enumerate(sorted(objective.heads().items()))
    }
