"""The towers: shapes, what each token may see, and the shortcut of the last block."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.clip import model, transformer
from jaxtbpr.retrieval.clip.model import SHARDING, Clip, ClipConfig, init_params
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.training import heads

CONFIG = ClipConfig(
    image_size=(32, 16),
    patch_size=8,
    stem="patch",
    vision=TowerConfig(width=16, layers=2, heads=2),
    text=TowerConfig(width=8, layers=2, heads=2),
    text_length=10,
    vocab_size=50,
    embed_dim=12,
)


@functools.cache
def params_of(config: ClipConfig):
    return jax.jit(functools.partial(init_params, Clip(config)))(jax.random.key(0))


def apply(config, method, rows):
    return Clip(config).apply({"params": params_of(config)}, rows, method=method)


def some_images(seed=0, size=(32, 16)):
    return np.random.default_rng(seed).integers(0, 256, (3, *size, 3), np.uint8)


@pytest.mark.parametrize("stem", ["patch", "hierarchical"])
def test_both_towers_meet_in_one_space(stem):
    config = dataclasses.replace(CONFIG, stem=stem)
    tokens = np.array([[48, 1, 2, 49, 0, 0, 0, 0, 0, 0]] * 3, np.int32)
    out = Clip(config).apply({"params": params_of(config)}, some_images(), tokens)
    image, text, scale = out
    assert image.shape == text.shape == (3, 12)
    assert image.dtype == text.dtype == scale.dtype == jnp.float32
    np.testing.assert_allclose(jnp.exp(scale), 1 / 0.07, rtol=1e-6)


@pytest.mark.parametrize(("grid", "width"), [((4, 2), 16), ((3, 3), 18)])
def test_positions_from_sines_tell_rows_and_columns_apart(grid, width):
    table = np.asarray(model.sine_positions(grid, width))
    assert table.shape == (1 + grid[0] * grid[1], width)
    assert not table[0].any()
    patches = table[1:].reshape(*grid, width)
    quarter = width // 4
    for n in range(quarter):
        frequency = 10000.0 ** (-n / (quarter - 1))
        for row, column in np.ndindex(grid):
            expected = [
                np.sin(row * frequency), np.cos(row * frequency),
                np.sin(column * frequency), np.cos(column * frequency),
            ]  # fmt: skip
            found = patches[row, column, n::quarter][:4]
            np.testing.assert_allclose(found, expected, atol=1e-6)
    config = dataclasses.replace(CONFIG, positions="sines")
    grid_table = model.sine_positions(config.grid, config.vision.width)
    np.testing.assert_array_equal(params_of(config)["image"]["positional_embedding"], grid_table)


def test_text_after_the_end_token_changes_nothing_and_before_it_does():
    tokens = np.array([[48, 1, 2, 49, 0, 0, 0, 0, 0, 0]], np.int32)
    after, before = tokens.copy(), tokens.copy()
    after[0, 6], before[0, 1] = 7, 7
    base = apply(CONFIG, Clip.encode_text, tokens)
    np.testing.assert_array_equal(apply(CONFIG, Clip.encode_text, after), base)
    assert np.abs(apply(CONFIG, Clip.encode_text, before) - base).max() > 1e-3


@pytest.mark.parametrize("causal", [False, True])
def test_the_last_block_of_one_token_equals_that_of_all(causal):
    block = transformer.Block(TowerConfig(width=16, layers=2, heads=2), causal, "float32")
    x = jax.random.normal(jax.random.key(1), (4, 7, 16))
    variables = block.init(jax.random.key(0), x)
    pooled = jnp.array([0, 3, 6, 2])
    every = block.apply(variables, x)[jnp.arange(4), pooled]
    np.testing.assert_allclose(block.apply(variables, x, pooled)[:, 0], every, atol=2e-6)


def test_every_pixel_reaches_the_image_features():
    def total(images):
        return apply(config, Clip.encode_image, images).sum()

    for stem in ("patch", "hierarchical"):
        config = dataclasses.replace(CONFIG, stem=stem)
        gradient = jax.grad(total)(some_images().astype(np.float32))
        assert (np.abs(gradient).max(axis=(0, 3)) > 0).all()


def test_space_to_depth_takes_squares_row_by_row():
    x = jnp.arange(4 * 6).reshape(1, 4, 6, 1)
    squares = model.space_to_depth(x, 2)
    assert squares.shape == (1, 2, 3, 4)
    assert squares[0, 1, 2].tolist() == [16, 17, 22, 23]


def test_parameters_stay_float32_when_the_computation_is_not():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(params_of(config))} == {jnp.dtype("float32")}
    half = apply(config, Clip.encode_image, some_images())
    whole = Clip(CONFIG).apply(
        {"params": params_of(config)}, some_images(), method=Clip.encode_image
    )
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - whole).max() < 0.1


def test_a_config_survives_json():
    assert ClipConfig.from_dict(CONFIG.to_dict()) == CONFIG


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="6x16 pixels have no patch of 8"):
        dataclasses.replace(CONFIG, image_size=(6, 16))
    with pytest.raises(InputError, match="needs a patch of 4, 8, 16 or 32, not 2"):
        dataclasses.replace(CONFIG, patch_size=2, stem="hierarchical")
    with pytest.raises(InputError, match="width 16 cannot have 3 heads"):
        TowerConfig(width=16, layers=1, heads=3)


def test_the_sharding_table_splits_every_large_parameter():
    config = dataclasses.replace(CONFIG, stem="hierarchical")
    mesh = meshes.make_mesh(fsdp=2)
    create = functools.partial(init_params, Clip(config), jax.random.key(0))
    placed = meshes.place(create, mesh, SHARDING)
    whole = [
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(placed)
        if len(x.shape) > 1 and "fsdp" not in x.sharding.spec
    ]
    assert whole == []


@pytest.mark.parametrize(
    "change", [{"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}]
)
def test_scanned_and_recomputed_blocks_give_the_same_gradients(change):
    tower = TowerConfig(width=16, layers=3, heads=2)
    config = dataclasses.replace(CONFIG, vision=tower, text=tower)
    other = dataclasses.replace(config, **change)
    params = params_of(config)
    changed = transformer.with_scan(params, other.scan)
    tokens = np.array([[48, 1, 2, 49, 0, 0, 0, 0, 0, 0]] * 3, np.int32)

    def loss(config, params):
        image, text, _ = Clip(config).apply({"params": params}, some_images(), tokens)
        return jnp.sum(image * text)

    expected = jax.jit(jax.grad(functools.partial(loss, config)))(params)
    found = jax.jit(jax.grad(functools.partial(loss, other)))(changed)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        transformer.with_scan(found, scan=False),
        dict(expected),
    )


def test_the_program_of_scanned_blocks_does_not_grow_with_the_depth():
    def size(layers):
        tower = TowerConfig(width=16, layers=layers, heads=2)
        config = dataclasses.replace(CONFIG, vision=tower, text=tower, scan=True)
        shapes = jax.eval_shape(functools.partial(init_params, Clip(config)), jax.random.key(0))
        images = jax.ShapeDtypeStruct((2, 32, 16, 3), jnp.uint8)
        apply = jax.jit(lambda p, x: Clip(config).apply({"params": p}, x, method=Clip.encode_image))
        return len(apply.lower(shapes, images).as_text())

    assert size(24) < 1.02 * size(4)


def test_what_is_too_little_for_a_patch_is_not_seen():
    config = dataclasses.replace(CONFIG, image_size=(37, 19))
    images = some_images(size=(37, 19))
    params = params_of(CONFIG)  # the grid is the same, 4x2

    def encode(images):
        return Clip(config).apply({"params": params}, images, method=Clip.encode_image)

    edge = images.copy()
    edge[:, 32:], edge[:, :, 16:] = 0, 0
    np.testing.assert_array_equal(encode(edge), encode(images))


@pytest.mark.parametrize("grid", [(4, 4), (6, 3)])
def test_rotary_positions_make_attention_depend_on_distance_alone(grid):
    table = transformer.rope_table(grid, 16)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    every = [
        transformer.rotate(jnp.tile(x, (1, 1 + grid[0] * grid[1], 1, 1)), table) for x in (q, k)
    ]
    products = jnp.einsum("bqnc,bknc->qk", *every)[1:, 1:].reshape(*grid, *grid)
    # The same step to the right and down gives the same product wherever it starts.
    np.testing.assert_allclose(products[0, 0, 1, 1], products[2, 1, 3, 2], rtol=1e-4)
    assert abs(products[0, 0, 1, 1] - products[0, 0, 1, 2]) > 1e-4
    np.testing.assert_array_equal(every[0][0, 0], q[0, 0])  # the class token is not turned


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ["all", "causal", "pooled"])
def test_attention_on_cpus_is_that_of_jax(monkeypatch, case, dtype):
    keys = jax.random.split(jax.random.key(0), 4)
    pooled = jnp.array([2, 0, 6], jnp.int32) if case == "pooled" else None
    q, k, v = (jax.random.normal(key, (3, 7, 2, 4), dtype) for key in keys[:3])
    q = q[:, :1] if case == "pooled" else q
    weights = jax.random.normal(keys[3], (3, q.shape[1], 8))
    is_causal = case != "all"

    def differentiate(backend):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)

        def loss(*arrays):
            out = transformer.attention(*arrays, causal=is_causal, pooled=pooled)
            return jnp.sum(weights * out), out

        (_, out), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
        assert out.dtype == q.dtype
        return jax.tree.map(lambda x: np.asarray(x, np.float32), (out, gradients))

    found, expected = differentiate("cpu"), differentiate("gpu")
    atol = 2e-6 if dtype == "float32" else 4e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, expected)


@pytest.mark.parametrize("width", [24, 200])  # 64 does not divide them
def test_masked_words_are_guessed_at_any_width(width):
    head = heads.MaskedWordHead(vocab_size=50, layers=1)
    text, image = (
        jax.ShapeDtypeStruct((2, 5, width), "f4"),
        jax.ShapeDtypeStruct((2, 3, width), "f4"),
    )
    found, _ = jax.eval_shape(head.init_with_output, jax.random.key(0), text, image)
    assert found.shape == (2, 5, 50)
