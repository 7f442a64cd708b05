"""What every test needs: eight virtual devices, full float32 products, JAX's cache on disk, and the
shapes of arrays checked against their annotations."""

import contextlib
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
# All that is compiled is kept, however small: the processes that tests start need it as well.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(home) / "jaxtbpr" / "xla")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Only now, since JAX reads the environment when it is imported.
import hypothesis
import jax
import jaxtyping
import pytest

# Before anything imports them: every call of these modules checks the shapes of its annotations.
jaxtyping.install_import_hook(
    [
        "jaxtbpr.retrieval.evaluation.metrics",
        "jaxtbpr.retrieval.evaluation.ranking",
        "jaxtbpr.retrieval.training.losses",
    ],
    "beartype.beartype",
)
# How long an example takes says nothing on a machine that does other work, too.
hypothesis.settings.register_profile("jaxtbpr", deadline=None)
hypothesis.settings.load_profile("jaxtbpr")
# Tests of our own numerics. Elsewhere optax raises floats to integers, and Flax's LayerNorm and the
# networks of diffusers mix float32 with bfloat16.
STRICT = {
    "test_examples", "test_losses", "test_losses_robust", "test_losses_tbps", "test_metrics",
    "test_pair_weights", "test_samplers", "test_scoring",
}  # fmt: skip
DATA = pathlib.Path(__file__).parent / "data"
# They take minutes each.
SLOWEST = (
    "test_main_job.py",
    "test_finetune.py",
    "test_generator.py",
    "test_generate_diffusion.py",
    "test_processes.py",
    "test_parity.py",
    "test_assets.py",
    "test_train.py",
    "test_train_step.py",
    "test_faults.py",
    "test_train_recipes.py",
    "test_editor.py",
    "test_wheel.py",
    "test_captioning.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slowest files first, so that no process ends alone with one of them."""
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(SLOWEST)))


@pytest.fixture(scope="module", autouse=True)
def strict_promotion(request):
    """Types are mixed where the code says so: half precision that turns into float32 by itself
    costs memory, and integers that turn into floats cost digits."""
    is_strict = pathlib.Path(request.path).stem in STRICT
    with jax.numpy_dtype_promotion("strict") if is_strict else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def reference() -> pathlib.Path:
    """The folder of reference numbers (see its README)."""
    return DATA / "reference"


@pytest.fixture(scope="session")
def devices() -> list[jax.Device]:
    """Eight virtual CPU devices."""
    found = jax.devices()
    if len(found) < 8:
        raise RuntimeError(f"the tests need 8 virtual devices, but JAX shows {len(found)}")
    return found
