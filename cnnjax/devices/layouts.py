"""Layouts of a run on devices: a single device, or data parallelism (batch sharded, state replicated).

The training step is the same in every layout; a layout decides where arrays live and how the step is
compiled. Sharding is explicit, by `shard_map` under `jit` or by `pmap`, so that the sums over gradients and
metrics are the only communication; XLA's partitioner would also send the patches of the CPU's convolution.
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

from cnnjax.errors import ArgumentError, UserError, one_line

AXIS = "data"
Mapper = Literal["jit", "pmap"]


class Layout(NamedTuple):
    """How a run places its arrays on devices and compiles its functions."""

    size: int  # number of devices, over all processes
    axis_name: str | None  # the mapped axis that shards a batch
    options: Mapping[str, Any]  # XLA compiler options
    replicate: Callable[[Any], Any]  # tree of host or local arrays -> copies on every device
    divide: Callable[[Any], jax.Array]  # plan i32[steps, batch] -> batch axis sharded over the devices
    # Wrap a function for compilation: (state, data, plan, hparams) -> (state, sums), with the state donated,
    epoch: Callable[[Callable[..., Any]], Any]
    evaluation: Callable[[Callable[..., Any]], Any]  # and (params, data) -> sums.


def cores() -> int:
    """Return how many cores this process may use (on macOS, which has no affinity, all of them)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_devices(count: int) -> None:
    """Simulate at least `count` devices on the CPU, if JAX has not been initialised yet.

    The limit is one device per core, or 8 if there are fewer cores, so that a laptop can try what will run
    on 8 accelerators.
    """
    count = min(count, max(8, cores()))
    if jax.config.values["jax_num_cpu_devices"] < count:
        with suppress(RuntimeError):  # already initialised
            jax.config.update("jax_num_cpu_devices", count)


def require_backend() -> None:
    """Initialise JAX, and check that programs can be compiled for the devices that the environment asks for.

    Raises:
        UserError: JAX_PLATFORMS names a platform without a device here.
        ArgumentError: JAX_DISABLE_JIT is set, with which an epoch would take hours.
    """
    if jax.config.values["jax_disable_jit"]:
        raise ArgumentError("JAX_DISABLE_JIT is set, and training is compiled ahead; unset it")
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"JAX finds no device of the platform {jax.config.values['jax_platforms']} ({one_line(error)}); "
            "unset JAX_PLATFORMS, or install JAX for that platform"
        ) from error


def layout(devices: int | None = None, by: Mapper = "jit") -> Layout:
    """Return the layout over `devices` devices per process: by default all accelerators, or one CPU device.

    On a CPU, any number up to the limit of `host_devices` can be simulated, if this is called before JAX's
    first computation.

    Raises:
        ArgumentError: there are fewer devices.
    """
    if devices is not None:
        if devices < 1:
            raise ArgumentError(f"--devices {devices} must be at least 1")
        host_devices(devices)
    require_backend()
    by_process = [jax.local_devices(process) for process in range(jax.process_count())]
    available = min(map(len, by_process))
    each = devices or (1 if jax.default_backend() == "cpu" else available)
    if each > available:
        kind = jax.devices()[0].device_kind
        raise ArgumentError(f"--devices {each} is more than there are: {available} ({kind}); give fewer")
    chosen = [device for local in by_process for device in local[:each]]
    if len(chosen) == 1 and by == "jit":
        return one_device()
    mesh = jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)
    return by_jit(mesh) if by == "jit" else by_pmap(mesh)


def refuse_undivided(batch_size: int, over: Layout) -> None:
    """Raise `ArgumentError` unless a batch divides evenly over the devices."""
    if batch_size % over.size:
        fits = max(n for n in range(1, over.size) if batch_size % n == 0)
        raise ArgumentError(
            f"--batch-size {batch_size} cannot be divided over {over.size} devices; give a multiple of "
            f"{over.size}, or {fits} devices"
        )


def one_device() -> Layout:
    """Return the layout of a single device: the first."""
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
    """Return the layout over a mesh with the single axis `AXIS`, by `shard_map` under `jit`."""

    def epoch(run: Callable[..., Any]) -> Any:
        specs = (P(), P(), P(None, AXIS), P())
        return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P()), donate_argnums=0)

    def evaluation(run: Callable[..., Any]) -> Any:
        return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P()))

    # With one device per core, threads inside an operation only wait for each other.
    options = {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else {}
    return Layout(
        size=mesh.size,
        axis_name=AXIS,
        options=options,
        replicate=partial(jax.tree.map, partial(place, NamedSharding(mesh, P()))),
        divide=partial(place, NamedSharding(mesh, P(None, AXIS))),
        epoch=epoch,
        evaluation=evaluation,
    )


def by_pmap(mesh: Mesh) -> Layout:
    """Return the layout over the same mesh with the training step under `pmap`."""
    devices = list(mesh.devices.flat)

    def divide(plan: Any) -> jax.Array:
        parts = np.asarray(plan).reshape(len(plan), mesh.size, -1)
        return place(NamedSharding(mesh, P(None, AXIS)), parts)

    def epoch(run: Callable[..., Any]) -> Any:
        axes = (None, None, 1, None)
        return jax.pmap(run, AXIS, in_axes=axes, out_axes=None, devices=devices, donate_argnums=0)

    return by_jit(mesh)._replace(divide=divide, epoch=epoch)


def place(sharding: Sharding, value: Any) -> jax.Array:
    """Place an array by `sharding`; every process passes the whole array."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = place(sharding, jax.random.key_data(value))
        return jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(value)))
    host = np.asarray(value)
    # Copy, because JAX may alias the memory that it is given, and a state is donated.
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index].copy())
