"""How a run lies on devices: on one, or with every batch divided over many and the state on each of them.

The step is the same everywhere (`cnnjax.train`); a layout says how arrays are placed and how the step is
compiled. Over many devices the division is written out, by `shard_map` under `jit` or by `pmap`, and not left
to XLA's partitioner: so the sums over gradients and metrics are the only communication on every backend,
where the partitioner would send the patches of the CPU's convolution around.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from cnnjax.errors import ArgumentError

AXIS = "data"
Mapper = Literal["jit", "pmap"]


class Layout(NamedTuple):
    """Devices, and what a run does differently on them."""

    size: int  # devices, those of all processes together
    axis_name: str | None  # the mapped axis that divides a batch
    options: Mapping[str, Any]  # of XLA's compiler
    replicate: Callable[[Any], Any]  # a tree of host arrays or local ones -> the same on every device
    divide: Callable[[Any], jax.Array]  # a plan i32[steps, batch] -> its batch axis over the devices
    # train_epoch's (state, data, plan, hparams) -> (state, sums), to be compiled; the state is donated
    epoch: Callable[[Callable[..., Any]], Any]
    evaluation: Callable[[Callable[..., Any]], Any]  # (params, data) -> sums, to be compiled


def cores() -> int:
    """Cores that this process may use; macOS, which knows no affinity, tells all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_devices(count: int) -> None:
    """Make a CPU `count` devices at least, if JAX has not started yet.

    At most 8 or one a core: more would only wait for each other, and 8 let a laptop try what runs on a
    machine of 8 accelerators.
    """
    count = min(count, max(8, cores()))
    if jax.config.values["jax_num_cpu_devices"] < count:
        with suppress(RuntimeError):  # it has
            jax.config.update("jax_num_cpu_devices", count)


def layout(devices: int | None = None, by: Mapper = "jit") -> Layout:
    """Lay a run on so many devices of each process, by default on all; a CPU is one unless asked for more.

    To be called before JAX's first computation, or a CPU keeps to the devices that it is.

    Raises:
        ArgumentError: there are not so many.
    """
    if devices is not None:
        if devices < 1:
            raise ArgumentError(f"--devices {devices} must be at least 1")
        host_devices(devices)
    of_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        of_process.setdefault(device.process_index, []).append(device)
    there = min(map(len, of_process.values()))
    each = devices or (1 if jax.default_backend() == "cpu" else there)
    if each > there:
        kind = jax.devices()[0].device_kind
        raise ArgumentError(f"--devices {each} is more than there are: {there} ({kind}); give fewer")
    chosen = [device for members in of_process.values() for device in members[:each]]
    if len(chosen) == 1 and by == "jit":
        return one_device()
    mesh = jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)
    return by_jit(mesh) if by == "jit" else by_pmap(mesh)


def refuse_undivided(batch_size: int, over: Layout) -> None:
    """Raise `ArgumentError` unless every device gets as many examples of a batch."""
    if batch_size % over.size:
        fits = max(n for n in range(1, over.size) if batch_size % n == 0)
        raise ArgumentError(
            f"--batch-size {batch_size} cannot be divided over {over.size} devices; give a multiple of "
            f"{over.size}, or {fits} devices"
        )


def one_device() -> Layout:
    """The first device, without any division."""
    return Layout(
        size=1,
        axis_name=None,
        options={},
        replicate=partial(jax.tree.map, jnp.asarray),
        divide=lambda plan: plan,
        epoch=partial(jax.jit, donate_argnums=0),
        evaluation=jax.jit,
    )


def by_jit(mesh: Mesh) -> Layout:
    """The devices of a mesh with the one axis `AXIS`, under `jit`."""

    def epoch(run: Callable[..., Any]) -> Any:
        specs = (P(), P(), P(None, AXIS), P())
        return jax.jit(
            jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P()),
            donate_argnums=0,
        )

    def evaluation(run: Callable[..., Any]) -> Any:
        return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P()))

    return Layout(
        size=mesh.size,
        axis_name=AXIS,
        options=_options(),
        replicate=partial(jax.tree.map, partial(place, NamedSharding(mesh, P()))),
        divide=partial(place, NamedSharding(mesh, P(None, AXIS))),
        epoch=epoch,
        evaluation=evaluation,
    )


def by_pmap(mesh: Mesh) -> Layout:
    """The same, with the steps under `pmap`."""
    devices = list(mesh.devices.flat)

    def divide(plan: Any) -> jax.Array:
        parts = np.asarray(plan).reshape(len(plan), mesh.size, -1)
        return place(NamedSharding(mesh, P(None, AXIS)), parts)

    def epoch(run: Callable[..., Any]) -> Any:
        axes = (None, None, 1, None)
        return jax.pmap(run, AXIS, in_axes=axes, out_axes=None, devices=devices, donate_argnums=0)

    return by_jit(mesh)._replace(divide=divide, epoch=epoch)


def _options() -> Mapping[str, Any]:
    """With a device a core, threads inside an operation only wait for each other."""
    return {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else {}


def place(sharding: Sharding, value: Any) -> jax.Array:
    """An array of which every process has the whole, its parts on the devices that `sharding` names."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = place(sharding, jax.random.key_data(value))
        return jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(value)))
    host = np.asarray(value)
    # Copies, because JAX may use the memory it is given, and a state is donated.
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())
