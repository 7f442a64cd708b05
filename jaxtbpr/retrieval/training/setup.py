"""Builds a training run from its config: sets, tokenizer, model, batches, trainer."""

import dataclasses
import functools
from typing import Any

import jax
import optax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tokenizers import Tokenizer

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core import tokenizer as tokenizers
from jaxtbpr.core.errors import InputError, UserError, of_key
from jaxtbpr.core.progress import say
from jaxtbpr.datasets import loader
from jaxtbpr.datasets.resizing import SQUASH, Resize
from jaxtbpr.datasets.source import RetrievalSet, list_sets, list_splits
from jaxtbpr.retrieval.clip.model import SHARDING, Clip, ClipConfig, init_params
from jaxtbpr.retrieval.clip.published import PUBLISHED
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.evaluation.embed import Embedder
from jaxtbpr.retrieval.saved import Saved, open_saved
from jaxtbpr.retrieval.training import optimizer as optimizers
from jaxtbpr.retrieval.training.loop import Plan, Sets, Trainer
from jaxtbpr.retrieval.training.objective import (
    CONTRASTIVE,
    LOSSES,
    Objective,
)
from jaxtbpr.retrieval.training.pair_weights import PairWeights
from jaxtbpr.retrieval.training.step import StepConfig, TrainState, create_state, state_of


def open_sets(data: ConfigDict, directory: epath.Path) -> Sets:
    """Opens the built sets that `data` names. Raises UserError for a missing set or split."""
    if not data.train_sets or len(set(data.train_sets)) < len(data.train_sets):
        raise UserError(
            f"config.data.train_sets={tuple(data.train_sets)!r} must name at least one set, each "
            "once."
        )
    with of_key("data.train_sets"):
        train = [RetrievalSet(directory / name, "train") for name in data.train_sets]
    validated = [name for name in data.train_sets if "val" in list_splits(directory / name)]
    val = [RetrievalSet(directory / name, "val") for name in validated]
    return Sets(train, val, open_test_sets(data, directory))


def open_test_sets(data: ConfigDict, directory: epath.Path) -> list[RetrievalSet]:
    """Opens the sets of `data.test_sets`; if it is empty, all sets with a test split."""
    names = data.test_sets or list_sets(directory, "test")
    with of_key("data.test_sets"):
        return [RetrievalSet(directory / name, "test") for name in names]


def open_start(config: ConfigDict) -> Saved | None:
    """Opens the model that `config.model.weights` names, for this run's images and captions."""
    if not config.model.weights:
        return None
    if config.model.name:
        raise UserError(
            "config.model.name cannot be used with config.model.weights, which has its own sizes; "
            "leave one of them out."
        )
    with of_key("model.weights"):
        return open_saved(
            config.model.weights,
            image_size=tuple(config.data.image_size),
            text_length=config.data.text_length,
            resize=config.data.resize,
            resample=config.data.resample,
            **_computation(config.model),
        )


def resize_of(data: ConfigDict, start: Saved | None) -> Resize:
    """Returns how the images of a run are resized; data: the section."""
    return start.resize if start else Resize(data.resize)


def open_tokenizer(data: ConfigDict, train: list[RetrievalSet], start: Saved | None) -> Tokenizer:
    """Loads the tokenizer of `start` or of `data.tokenizer`, or learns one from the captions."""
    if start is not None:
        try:
            return start.tokenizer(data.tokenizer)
        except InputError as error:
            raise UserError(f"{error} Or set config.data.tokenizer to its folder.") from error
    if data.tokenizer:
        with of_key("data.tokenizer"):
            return tokenizers.load(data.tokenizer)
    captions = (text for one in train for captions in one.captions for text in captions)
    return tokenizers.learn(captions, data.vocab_size)


def model_config(config: ConfigDict, vocab_size: int) -> ClipConfig:
    """Returns the config of a new model from the sections `data` and `model`."""
    options = config.model
    text_sizes = {"text_length": config.data.text_length, "vocab_size": vocab_size}
    size = tuple(config.data.image_size)
    if options.name:
        known = PUBLISHED[options.name]
        return dataclasses.replace(known, image_size=size, **text_sizes, **_computation(options))

    def tower(name: str) -> TowerConfig:
        sizes = (options[f"{name}_{key}"] for key in ("width", "layers", "heads"))
        return TowerConfig(*sizes, activation=options.activation)

    return ClipConfig(
        image_size=size,
        patch_size=options.patch_size,
        stem=options.stem,
        vision=tower("vision"),
        text=tower("text"),
        embed_dim=options.embed_dim,
        positions=options.positions,
        **text_sizes,
        **_computation(options),
    )


def _computation(options: ConfigDict) -> dict[str, Any]:
    """The fields of a `ClipConfig` that any model can have; options: the section `model`."""
    return {name: options[name] for name in ("pixels", "dtype", "scan", "remat")}


def make_plan(options: ConfigDict, train: list[RetrievalSet]) -> Plan:
    """Returns the plan of a run; options: the section `train`."""
    with of_key("train.batch_size"):
        per_epoch = loader.steps_per_epoch(train, options.batch_size)
    steps = options.steps or options.epochs * per_epoch
    schedule = optimizers.warmup_cosine(
        learning_rate=options.learning_rate,
        start=options.start_learning_rate,
        end=options.end_learning_rate,
        warmup_steps=min(round(options.warmup_epochs * per_epoch), steps),
        steps=steps,
    )
    return Plan(
        batch_size=options.batch_size,
        steps=steps,
        steps_per_epoch=per_epoch,
        eval_every=max(1, round(options.eval_every * per_epoch)),
        checkpoint_every=options.checkpoint_every,
        patience=options.patience,
        schedule=schedule,
    )


def build_trainer(
    config: ConfigDict,
    sets: Sets,
    tokenizer: Tokenizer,
    directory: epath.Path,
    start: Saved | None = None,
) -> Trainer:
    """Builds all parts of a run in `directory`; nothing is compiled yet."""
    options, plan = config.train, make_plan(config.train, sets.train)
    with of_key("train.fsdp"):
        mesh = meshes.make_mesh(options.fsdp)
    check_batch(options, mesh)
    with of_key("model"):
        sizes = start.config if start else model_config(config, tokenizer.get_vocab_size())
    model = Clip(sizes)
    params = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    with of_key("train.freeze"):
        optimizers.check_frozen(params, options.freeze)
    resize = resize_of(config.data, start)
    batches = open_batches(config, sets.train, tokenizer, resize)
    step_config = make_step_config(options, plan, model, mesh, batches.identities, batches.slots)
    create = functools.partial(create_state, step_config=step_config)
    with of_key("train.lora"):
        shapes = meshes.place(lambda: create(jax.random.key(0)), mesh, SHARDING)
    embedder = Embedder(
        model,
        tokenizer,
        mesh,
        batch_size=options.eval_batch_size,
        resample=config.data.resample,
        resize=resize,
    )
    return Trainer(
        plan=plan,
        sets=sets,
        batches=batches,
        step_config=step_config,
        create=functools.partial(_create, step_config, start, meshes.shardings_of(shapes)),
        shapes=shapes,
        embedder=embedder,
        pair_weights=open_pair_weights(options, directory, embedder, sets.train, batches),
    )


def open_pair_weights(
    options: ConfigDict,
    directory: epath.Path,
    embedder: Embedder,
    train: list[RetrievalSet],
    batches: loader.TrainLoader,
) -> PairWeights | None:
    """Returns the weights of the pairs, None where `options` (section `train`) have them off."""
    if not (options.save_pair_losses or options.denoise):
        return None
    return PairWeights(
        options.denoise, options.denoise_warmup_epochs, directory, embedder, train, batches.pairs
    )


def _create(
    step_config: StepConfig, start: Saved | None, shardings: Any, key: jax.Array
) -> TrainState:
    """The state before the first step: with new parameters, or those of `start`."""
    if start is None:
        create = functools.partial(create_state, step_config=step_config)
        return meshes.compiled_together(jax.jit(create, out_shardings=shardings))(key)
    say(f"train: starts from {start.source}")
    params = start.read_params()
    places = {name: shardings.params[name] for name in params}  # heads and LoRA are new
    params = jax.device_put(params, places)
    create = jax.jit(functools.partial(state_of, step_config=step_config), out_shardings=shardings)
    return meshes.compiled_together(create)(params, key)


def check_captions(captions: int) -> None:
    """Raises UserError for several captions per image where each caption has a weight."""
    if captions > 1:
        raise UserError(
            f"config.train.captions={captions} needs one weight per image, but the captions of "
            "the train sets have a weight each; use config.train.captions=1 or "
            "config.denoise.action='drop'."
        )


def check_batch(options: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError for a batch not divisible by devices and chunks, and for no loss."""
    with of_key("train.batch_size"):
        meshes.check_batch_size(options.batch_size, mesh)
    if options.batch_size // mesh.size % options.grad_cache_chunks:
        raise UserError(
            f"config.train.grad_cache_chunks={options.grad_cache_chunks} must divide the "
            f"{options.batch_size // mesh.size} pairs of a batch on each device."
        )
    _check_loss_rows(options, options.batch_size // mesh.size)
    weights = [row.name for row in CONTRASTIVE if row.is_enough]
    if not any(options[name] for name in weights):
        raise UserError(
            "no contrastive loss is enabled: one of "
            f"{', '.join('config.train.' + name for name in weights)} must be greater than 0."
        )


def _check_loss_rows(options: ConfigDict, rows: int) -> None:
    """Raises UserError where `loss_rows` cannot be kept with `rows` of a batch per device."""
    held = options.loss_rows
    if not held or held >= rows:
        return
    if rows % held:
        raise UserError(
            f"config.train.loss_rows={held} must divide the {rows} rows of a batch on each device."
        )
    whole = [row.name for row in LOSSES if not row.by_rows and options[row.name]]
    whole += ["small_loss_fraction"] if options.small_loss_fraction < 1 else []
    if whole:
        raise UserError(
            f"config.train.loss_rows={held} cannot be used with config.train.{whole[0]}, which "
            "needs all rows at once; set one of them to its default."
        )


def make_objective(
    options: ConfigDict, plan: Plan, *, identities: int, vocab_size: int, slots: int = 0
) -> Objective:
    """Returns the objective of a step; options: the section `train`."""
    return Objective(
        **{loss.name: options[loss.name] for loss in LOSSES},
        robust_loss=options.robust_loss,
        multi_view=options.multi_view,
        captions=options.captions,
        facts=slots,
        soft_label_ratio=optimizers.soft_label_ratio(
            options.soft_label_ratio, plan.steps_per_epoch
        ),
        soft_labels=options.soft_labels,
        ritc_eps=options.ritc_eps,
        small_loss_fraction=options.small_loss_fraction,
        channel_mask=options.channel_mask,
        identities=identities,
        vocab_size=vocab_size,
        mlm_layers=options.mlm_layers,
        loss_rows=options.loss_rows,
    )


def make_step_config(
    options: ConfigDict, plan: Plan, model: Clip, mesh: Mesh, identities: int, slots: int = 0
) -> StepConfig:
    """Returns the settings of a step; options: the section `train`.

    identities, slots: how many identities, and slots of facts, the train sets have.
    """
    frozen = options.freeze
    if options.lora:  # the towers are frozen; only LoRA changes them
        frozen = rf"(image|text)/.*|{frozen}" if frozen else r"(image|text)/.*"
    optimizer = optimizers.adamw(
        lambda update: plan.schedule(update * options.accumulation_steps),
        weight_decay=options.weight_decay,
        b2=options.beta2,
        clip_norm=options.clip_norm or None,
        frozen=frozen,
        layer_decay=options.layer_decay,
        head_lr_factor=options.head_lr_factor,
    )
    if options.accumulation_steps > 1:
        optimizer = optax.MultiSteps(optimizer, options.accumulation_steps)
    objective = make_objective(
        options, plan, identities=identities, vocab_size=model.config.vocab_size, slots=slots
    )
    return StepConfig(
        model,
        optimizer,
        mesh,
        objective,
        options.ema_decay,
        options.grad_cache_chunks,
        frozen=frozen,
        lora=options.lora,
        lora_rank=options.lora_rank,
    )


def open_batches(
    config: ConfigDict, train: list[RetrievalSet], tokenizer: Tokenizer, resize: Resize = SQUASH
) -> loader.TrainLoader:
    """Returns the endless training batches of this process.

    Raises UserError for several captions per image where captions have weights.
    """
    data = config.data
    if any((one.caption_weights != 1).any() for one in train):
        check_captions(config.train.captions)
    weights = data.set_weights.to_dict()
    with of_key("data.set_weights"):
        loader.check_set_weights(weights, train)
    with of_key("train"):
        return loader.train_loader(
            train,
            tokenizer,
            batch_size=config.train.batch_size,
            seed=config.seed,
            image_size=tuple(data.image_size),
            text_length=data.text_length,
            resample=data.resample,
            resize=resize,
            augment=data.augment,
            caption_noise=data.caption_noise,
            set_weights=weights,
            views=loader.Views(
                second=config.train.multi_view,
                strong=config.train.simclr > 0,
                words=config.train.mlm > 0,
                captions=config.train.captions,
                facts=config.train.targets == "facts",
            ),
            workers=data.workers,
            threads=data.threads,
            cache_mb=data.cache_mb,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
