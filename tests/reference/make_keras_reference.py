# pyright: reportMissingImports=false
# Keras lives in the benchmark peer's own environment, never in the project's.
"""Make keras_reference.npz: what Keras computes, for the tests of "the same network".

    KERAS_BACKEND=tensorflow PYTHONPATH=experiments/peers PYTHON \\
        tests/reference/make_keras_reference.py --arrays FILE.npz

PYTHON is the Keras peer's (experiments/peers/requirements-tf.txt) and FILE.npz the arrays that the
benchmark gives its peers. Both networks are trained for 300 steps so that no weight is trivial,
rounded to float16 values (half a megabyte packed) and only then evaluated. Keys, MODEL being `keras-cnn`
or `lenet-swish`, arrays float32 unless said:

    images                  uint8[16,28,28,1], the first 16 validation digits; divide by 255
    MODEL/conv_I/kernel     [height,width,in,out], I counting from 0
    MODEL/conv_I/bias       [out]
    MODEL/dense_I/kernel    [in,out], the rows after Flatten in (height,width,channel) order
    MODEL/dense_I/bias      [out]
    MODEL/logits            [16,10], of the images in inference mode
    optimizer/gradients     [10,8], one row a step; whole columns are tiny, so that epsilon shows
    optimizer/adam          [11,8], the parameters before step 1 and after each step:
                            keras.optimizers.Adam(1e-3)
    optimizer/rmsprop       [11,8], the same for RMSprop(1e-3, rho=0.9, epsilon=1e-7)
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from keras_peer import make_model, make_optimizer
from protocol import PARAMETERS, unit_floats

TARGET = Path(__file__).with_name("keras_reference.npz")
STEPS, BATCH_SIZE = 300, 128
GRADIENT_SCALES = np.array([1, 1e-2, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 0], np.float32)


def trained_model(name: str, images: np.ndarray, labels: np.ndarray) -> keras.Sequential:
    """The network after STEPS steps of its tutorial's optimizer, its weights rounded to float16."""
    keras.utils.set_random_seed(0)
    model = make_model(name, rate=0.0)
    model.compile(make_optimizer(name), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    count = STEPS * BATCH_SIZE
    model.fit(images[:count], labels[:count], batch_size=BATCH_SIZE, verbose=0)
    model.set_weights([w.astype(np.float16).astype(np.float32) for w in model.get_weights()])
    return model


def named_weights(model: keras.Sequential) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs such as ("conv_0/kernel", array), numbered by kind in the network's order."""
    for prefix, kind in (("conv", keras.layers.Conv2D), ("dense", keras.layers.Dense)):
        found = [layer for layer in model.layers if isinstance(layer, kind)]
        for place, layer in enumerate(found):
            kernel, bias = layer.get_weights()
            yield f"{prefix}_{place}/kernel", kernel
            yield f"{prefix}_{place}/bias", bias


def trajectory(optimizer: keras.optimizers.Optimizer, gradients: np.ndarray) -> np.ndarray:
    """Parameters float32[T+1,P] as the optimizer moves them, from 0.01, by gradients[T,P]."""
    parameters = keras.Variable(np.full(gradients.shape[1], 0.01, np.float32))
    path = [keras.ops.convert_to_numpy(parameters)]
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [parameters])
        path.append(keras.ops.convert_to_numpy(parameters))
    return np.stack(path)


def main() -> None:
    """Train, round, evaluate, and write the file beside this script."""
    parser = argparse.ArgumentParser(description="Make keras_reference.npz beside this script.")
    parser.add_argument("--arrays", type=Path, required=True)
    with np.load(parser.parse_args().arrays) as arrays:
        train, labels = unit_floats(arrays["train_images"]), arrays["train_labels"]
        images = arrays["val_images"][:16]

    normal = np.random.default_rng(0).standard_normal((10, len(GRADIENT_SCALES)))
    gradients = normal.astype(np.float32) * GRADIENT_SCALES
    reference = {
        "images": images,
        "optimizer/gradients": gradients,
        "optimizer/adam": trajectory(keras.optimizers.Adam(1e-3), gradients),
        "optimizer/rmsprop": trajectory(keras.optimizers.RMSprop(1e-3, rho=0.9, epsilon=1e-7), gradients),
    }
    for name in PARAMETERS:
        model = trained_model(name, train, labels)
        reference |= {f"{name}/{key}": value for key, value in named_weights(model)}
        logits = model(unit_floats(images), training=False)
        reference[f"{name}/logits"] = keras.ops.convert_to_numpy(logits)
    np.savez_compressed(TARGET, **reference)


if __name__ == "__main__":
    main()
