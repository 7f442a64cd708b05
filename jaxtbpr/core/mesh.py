"""Devices: one mesh for every run, and the sharding of its arrays.

The mesh has two axes. The batch is split over both of them; parameters and optimizer state are
split over `fsdp` alone, as a table of (regular expression, PartitionSpec) says, as in big_vision.
"""

import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtbpr.core.errors import InputError

AXES = ("data", "fsdp")
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm] jaxlib has no types
Rules = Sequence[tuple[str, P]]
_is_split = False  # by `split_cpu`
_barriers = itertools.count()  # the same in all processes, which pass the same barriers
_A_DAY = 24 * 3600 * 1000  # in milliseconds


def split_cpu() -> None:
    """Makes each CPU core a device, for programs whose rows do not need each other.

    Call it before anything is computed; it does nothing where XLA_FLAGS or JAX_NUM_CPU_DEVICES
    say how many there are.
    """
    global _is_split
    flags = os.environ.get("XLA_FLAGS", "")
    cpus: int = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue] dynamic
    if "host_platform_device_count" in flags or cpus > 0:
        return
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    _is_split = True


def make_mesh(fsdp: int = 1, devices: Sequence[Device] | None = None) -> Mesh:
    """Returns the mesh of all devices of all processes, [devices / fsdp, fsdp].

    A CPU that `split_cpu` has split counts as one device, whose programs run on all cores. Where
    there are several processes, each must call it, and they wait here for each other.

    fsdp: over how many devices each parameter is split; 1 keeps a copy on every device.
    devices: some devices instead, for this process alone.
    Raises InputError where `fsdp` does not divide the number of devices.
    """
    if devices is None:
        mesh = make_mesh(fsdp, _all_devices())
        _connect(mesh)
        return mesh
    if len(devices) % fsdp:
        raise InputError(
            f"fsdp={fsdp} does not divide the {len(devices)} devices; "
            f"choose one of {[n for n in range(1, len(devices) + 1) if len(devices) % n == 0]}."
        )
    return Mesh(np.array(devices).reshape(-1, fsdp), AXES)


@functools.cache
def _connect(mesh: Mesh) -> None:
    """Opens the connections between processes that programs over `mesh` use.

    XLA opens those of a group of devices at its first collective, and on CPUs the program fails
    where one device comes 30 s after another. A process can be later than that: it may compile
    what another finds in its cache. Over connections that are open they wait for half an hour.
    """
    if jax.process_count() == 1:
        return
    ones = np.ones(mesh.size, np.float32)
    rows = jax.make_array_from_callback(ones.shape, batch_sharding(mesh), lambda at: ones[at])

    def add(x):
        return sum(jax.lax.psum(x, axes) for axes in (AXES, *AXES))

    program = jax.jit(on_rows(mesh, add, P(AXES))).lower(rows).compile()
    wait_for_all("mesh")
    jax.block_until_ready(program(rows))
    # Orbax and `on_host` use groups of one device of each process.
    multihost_utils.sync_global_devices("mesh")


def compiled_together(program: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a jitted `program` of all processes, which they start together the first time.

    For each shape of its arguments they wait until all have compiled it, since its collectives may
    need connections that are not open yet (see `_connect`): XLA chooses groups of devices freely.
    """
    if jax.process_count() == 1:
        return program
    compiled = {}

    def call(*args):
        leaves, tree = jax.tree.flatten(args)
        form = tree, *((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
        if form not in compiled:
            compiled[form] = program.lower(*args).compile()
            wait_for_all("compiled")
        return compiled[form](*args)

    return call


def _all_devices() -> list[Device]:
    devices = jax.devices()
    if devices[0].platform != "cpu" or not _is_split:
        return devices
    return [d for d in devices if d == jax.local_devices(process_index=d.process_index)[0]]


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError unless every device of `mesh` gets the same number of rows."""
    if batch_size % mesh.size:
        near = max(batch_size // mesh.size, 1) * mesh.size
        raise InputError(
            f"batch_size={batch_size} is not a multiple of the {mesh.size} devices on mesh axes "
            f"data x fsdp; try {near}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch [B, ...]: its rows split over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array of which every device has a copy."""
    return NamedSharding(mesh, P())


def on_rows(mesh: Mesh, function: Callable[..., Any], out: P) -> Callable[..., Any]:
    """`function` of each device's rows of global arrays, and of scalars, by jax.shard_map.

    Rows are split over all axes of `mesh`. out: P() where the devices agree on the result,
    P(mesh.axis_names) where it has a row for each row.
    """

    def run(*arrays):
        specs = tuple(P(mesh.axis_names) if jnp.ndim(x) else P() for x in arrays)
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out)(*arrays)

    return run


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Moves a tree of host arrays [B / processes, ...] to the devices as global arrays [B, ...]."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def infer_shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """Returns the NamedSharding of every array in `tree`, as a tree of the same structure.

    tree: arrays or their shapes (jax.eval_shape). rules: the first whose expression matches the
    whole path ("params/text/token_embedding/embedding") decides. An axis that the mesh does not
    divide evenly stays whole. Raises ValueError for a path that no rule matches.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _spec(_name(path), leaf.shape, mesh, rules)), tree
    )


def place(create: Callable[[], Any], mesh: Mesh, rules: Rules) -> Any:
    """Returns jax.ShapeDtypeStructs, with shardings, of the arrays that `create()` makes.

    Nothing is computed. See `infer_shardings` for `rules`.
    """
    shapes = jax.eval_shape(create)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        infer_shardings(shapes, mesh, rules),
    )


def is_primary_process() -> bool:
    """Whether this process, the first, writes the outputs that all processes share."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns when every process has come here. what: name of the barrier, the same in all.

    A process may be a day late, since work is not always divided evenly; one that has died is
    noticed after minutes and ends the others.
    """
    if jax.process_count() > 1:
        # Not by a collective of the devices, which waits for less time (see `_connect`).
        from orbax.checkpoint import multihost  # here, since most commands need no Orbax

        wait = multihost.get_barrier_sync_fn()
        wait(key=f"jaxtbpr {what} {next(_barriers)}", timeout_ms=_A_DAY)


def on_host(tree: Any) -> Any:
    """Returns global arrays whole, as NumPy arrays, in every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def shardings_of(shapes: Any) -> Any:
    """Returns the sharding of each jax.ShapeDtypeStruct (or array) in a tree."""
    return jax.tree.map(lambda x: x.sharding, shapes)


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh, rules: Rules) -> P:
    spec = next((spec for rule, spec in rules if re.fullmatch(rule, name)), None)
    if spec is None:
        raise ValueError(f"no sharding rule matches {name!r}; end the table with ('.*', P()).")
    if len(spec) > len(shape):
        raise ValueError(f"the sharding rule for {name!r} is {spec}, but its shape is {shape}.")
    sizes = zip(spec, shape[: len(spec)], strict=True)
    return P(*(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in sizes))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
