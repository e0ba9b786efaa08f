"""Keras 3 as a peer, with `model.fit` on the backend of KERAS_BACKEND (tensorflow or jax).

These were the fastest settings on two cores. TensorFlow: a tf.data pipeline over shuffled indices (10%
faster than passing arrays), 20 steps per execution, no XLA (ten times slower). Autotuning is off, because
the tuner wakes after 10, 20, 40, ... ms and many epochs ended only at its next wake-up, 2.55 or 5.11 s after
the start. JAX: plain arrays, XLA (Keras's default), one step per execution; more steps, a PyDataset or a
generator are no faster.
"""

from importlib.metadata import version
from typing import Any

import keras
from keras import layers
from protocol import EVALUATION_BATCH, Arrays, EpochResult, Peer, Settings, serve, unit_floats

BACKEND = keras.backend.backend()
COMPILE: dict[str, dict[str, Any]] = {
    "tensorflow": {"jit_compile": False, "steps_per_execution": 20},
    "jax": {"jit_compile": True},
}


def make_model(name: str, rate: float) -> keras.Sequential:
    """Build one of the tutorials' networks with Keras's initialisation; it outputs logits."""
    dropout = [layers.Dropout(rate)] if rate else []
    if name == "keras-cnn":
        stack = [
            layers.Conv2D(10, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            *dropout,
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    else:
        stack = [
            layers.Conv2D(3, 5, activation="swish"),
            layers.MaxPooling2D(2),
            layers.Conv2D(6, 5, activation="swish"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            *dropout,
            layers.Dense(84, activation="swish"),
            layers.Dense(10),
        ]
    return keras.Sequential([keras.Input((28, 28, 1)), *stack])


def make_optimizer(name: str) -> keras.optimizers.Optimizer:
    """Build the tutorial's optimizer, with Keras's defaults spelled out."""
    if name == "keras-cnn":
        return keras.optimizers.Adam(1e-3, epsilon=1e-7)
    return keras.optimizers.RMSprop(1e-3, rho=0.9, epsilon=1e-7)


def fit_arguments(arrays: Arrays, batch_size: int) -> dict[str, Any]:
    """Return the data arguments of `model.fit`, which shuffles every epoch on either backend."""
    images, labels = unit_floats(arrays.train_images), arrays.train_labels
    if BACKEND == "jax":
        return {"x": images, "y": labels, "batch_size": batch_size}
    return {"x": pipeline(images, labels, batch_size, shuffled=True)}


def evaluation_arguments(arrays: Arrays) -> dict[str, Any]:
    """Return the data arguments of `model.evaluate`."""
    images, labels = unit_floats(arrays.val_images), arrays.val_labels
    if BACKEND == "jax":
        return {"x": images, "y": labels, "batch_size": EVALUATION_BATCH}
    return {"x": pipeline(images, labels, EVALUATION_BATCH, shuffled=False)}


def pipeline(images: Any, labels: Any, batch_size: int, *, shuffled: bool) -> Any:
    """Build a tf.data pipeline over indices into arrays in memory, without autotuning."""
    import tensorflow as tf

    images, labels = tf.constant(images), tf.constant(labels)
    indices = tf.data.Dataset.range(len(labels))
    if shuffled:
        indices = indices.shuffle(len(labels))
    batches = indices.batch(batch_size).map(
        lambda taken: (tf.gather(images, taken), tf.gather(labels, taken))
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def build(settings: Settings, arrays: Arrays) -> Peer:
    """Build the compiled network and its data as arrays in memory."""
    keras.utils.set_random_seed(settings.seed)
    model = make_model(settings.model, settings.rate)
    model.compile(
        optimizer=make_optimizer(settings.model),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **COMPILE[BACKEND],
    )
    train = fit_arguments(arrays, settings.batch_size)
    validation = evaluation_arguments(arrays)
    in_fit = {"validation_data": validation["x"]}
    if BACKEND == "jax":
        in_fit = {
            "validation_data": (validation["x"], validation["y"]),
            "validation_batch_size": EVALUATION_BATCH,
        }

    def train_epoch() -> EpochResult:
        log = model.fit(**train, **(in_fit if settings.validate else {}), verbose=0).history
        accuracy = log["val_accuracy"][0] if settings.validate else None
        return EpochResult(log["loss"][0], log["accuracy"][0], accuracy)

    def evaluate() -> float:
        return model.evaluate(**validation, verbose=0, return_dict=True)["accuracy"]

    return Peer(
        version={name: version(name) for name in ("keras", BACKEND)},
        parameters=model.count_params(),
        train_epoch=train_epoch,
        evaluate=evaluate,
    )


if __name__ == "__main__":
    serve(build)
