"""The mesh: its shape, where arrays lie on it, and what the user reads when sizes do not fit."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import InputError

RULES = ((r".*/kernel", P(None, "fsdp")), (r".*", P()))


def test_the_mesh_has_all_devices_on_two_axes(devices):
    assert dict(meshes.make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(meshes.make_mesh(fsdp=2).shape) == {"data": 4, "fsdp": 2}
    assert meshes.make_mesh(devices=devices[:1]).size == 1


def test_cores_made_devices_are_for_what_asks_for_them():
    assert split() == (os.cpu_count(), 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
        {"JAX_NUM_CPU_DEVICES": "3"},
    ],
)
def test_devices_that_the_user_asks_for_are_all_on_the_mesh(settings):
    assert split(**settings) == (3, 3)


def split(**settings: str) -> tuple[int, int]:
    """(devices, those on the mesh) of a process with these environment variables."""
    script = (
        "from jaxtbpr.core import mesh; import jax; mesh.split_cpu();"
        "print(jax.local_device_count(), mesh.make_mesh().size)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"XLA_FLAGS": ""} | settings,
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    devices, used = map(int, process.stdout.split())
    return devices, used


def test_a_number_of_devices_that_fsdp_does_not_divide_is_refused(devices):
    with pytest.raises(InputError, match=r"^fsdp=3 .* 8 devices; choose one of \[1, 2, 4, 8\]"):
        meshes.make_mesh(fsdp=3)


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    mesh = meshes.make_mesh(fsdp=2)
    meshes.check_batch_size(16, mesh)
    with pytest.raises(InputError, match=r"^batch_size=20 .* 8 devices .* try 16"):
        meshes.check_batch_size(20, mesh)
    with pytest.raises(InputError, match="try 8"):
        meshes.check_batch_size(3, mesh)


def test_the_rows_of_a_batch_are_split_over_both_axes():
    mesh = meshes.make_mesh(fsdp=2)
    rows = np.arange(32).reshape(16, 2)
    batch = meshes.put_batch({"a": rows}, mesh)
    assert [shard.data.shape for shard in batch["a"].addressable_shards] == [(2, 2)] * 8
    np.testing.assert_array_equal(batch["a"], rows)


def test_the_first_rule_that_matches_the_whole_path_decides():
    mesh = meshes.make_mesh(fsdp=2)
    tree = {"a": {"kernel": jnp.zeros((3, 4)), "kernel_2": jnp.zeros((3, 4))}}
    found = meshes.infer_shardings(tree, mesh, RULES)
    assert found["a"]["kernel"].spec == P(None, "fsdp")
    assert found["a"]["kernel_2"].spec == P()


def test_an_axis_that_the_mesh_does_not_divide_stays_whole():
    mesh = meshes.make_mesh(fsdp=4)
    found = meshes.infer_shardings({"a": {"kernel": jnp.zeros((4, 6))}}, mesh, RULES)
    assert found["a"]["kernel"].spec == P(None, None)


def test_faults_of_a_table_name_the_array():
    mesh = meshes.make_mesh()
    with pytest.raises(ValueError, match="no sharding rule matches 'b/bias'"):
        meshes.infer_shardings({"b": {"bias": jnp.zeros(3)}}, mesh, RULES[:1])
    with pytest.raises(ValueError, match=r"'b/kernel'.*\(3,\)"):
        meshes.infer_shardings({"b": {"kernel": jnp.zeros(3)}}, mesh, RULES)


def test_placing_computes_nothing():
    def create():
        calls.append(1)
        return {"a": {"kernel": jax.random.normal(jax.random.key(0), (2, 8))}}

    calls: list[int] = []
    placed = meshes.place(create, meshes.make_mesh(fsdp=2), RULES)
    assert calls == [1]
    assert placed["a"]["kernel"].sharding.spec == P(None, "fsdp")
    assert not isinstance(placed["a"]["kernel"], jax.Array)


MEET = """
import sys, time
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from jaxtbpr.core import mesh as meshes

port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process))
jax.devices()
meshes.wait_for_all("start")
began = time.monotonic()
time.sleep(1.5 * int(process))
meshes.wait_for_all("late")
print("waited" if time.monotonic() - began > 1.2 else "did not wait", flush=True)

def double(x):
    time.sleep(1.5 * int(process))  # compiling takes longer in one of them
    return 2 * x

program, began = meshes.compiled_together(jax.jit(double)), time.monotonic()
assert program(np.ones(2, np.float32)).tolist() == [2, 2]
print("waited" if time.monotonic() - began > 1.2 else "did not wait", flush=True)
began = time.monotonic()
assert program(np.ones(2, np.float32)).tolist() == [2, 2]
print("waited" if time.monotonic() - began > 1.2 else "did not wait", flush=True)
mesh = meshes.make_mesh(fsdp=2)
print("connected", flush=True)
rows = meshes.put_batch(np.ones(2, np.float32), mesh)
for axes in (meshes.AXES, *meshes.AXES):
    add = meshes.on_rows(mesh, lambda x: jax.lax.psum(x, axes), P(meshes.AXES))
    print(meshes.on_host(jax.jit(add)(rows)).tolist(), flush=True)
"""


def test_processes_connect_when_the_mesh_is_made_and_wait_without_connections():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MEET, str(port), str(process)],
            env=os.environ | flags, stdout=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    for process in both:
        before, _, after = process.communicate(timeout=120)[0].partition("connected\n")
        *waited, connections = before.split("\n", 3)
        assert waited == ["waited", "waited", "did not wait"]  # at a barrier, a first and next run
        assert "[Gloo] Rank" in connections
        assert after.splitlines() == [str([4.0] * 4), str([2.0] * 4), str([2.0] * 4)]
