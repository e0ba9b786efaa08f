# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From Keras to JAX, one layer at a time
#
# You have built a small convolutional network in Keras and wonder what JAX would change. This lesson builds
# two networks for handwritten digits: one with a single convolution, pooling, dropout and two dense layers,
# and a smaller one with two convolutions and `swish`. Each step shows Keras's code first, then ours. You
# will meet four things that Keras hides: **keys** for randomness, **`grad`** for the derivative of any
# function, **`jit`** to compile a function, and **`vmap`** to run it many times at once.
#
# It takes ten minutes to read, and a few to run on two cores. Every result is computed by the cell above it.
#
# The first cell installs cnnjax if it is missing: from a wheel beside the notebook, or from the clone that
# the notebook is in. In Colab, clone the repository, or upload a wheel to the session's files
# (`pip wheel --no-deps .` in a clone makes one).

# %%
try:
    import cnnjax.keys
except ImportError:  # missing, or only a clone called cnnjax is found, which is no package
    import importlib
    import subprocess
    import sys
    from pathlib import Path

    here = Path().resolve()
    clones = [place for place in (here, here.parent, *here.iterdir()) if (place / "cnnjax/keys.py").exists()]
    sources = [*here.glob("cnnjax-*.whl"), *clones]
    assert sources, "put a wheel of cnnjax beside the notebook, or open the notebook in a clone"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(sources[0])], check=True)
    for found in [name for name in sys.modules if name.partition(".")[0] == "cnnjax"]:
        del sys.modules[found]
    importlib.invalidate_caches()
    import cnnjax

print("cnnjax", cnnjax.__version__)

# %% [markdown]
# The settings. For a faster first run, reduce the images, epochs or seeds.

# %% tags=["parameters"]
import os

DATASET = os.environ.get("CNNJAX_LESSON_DATASET", "mnist")
DATA_DIR = os.environ.get("CNNJAX_LESSON_DATA_DIR")  # directory with the four IDX files, to work offline
IMAGES = int(os.environ.get("CNNJAX_LESSON_IMAGES", "6000"))
EPOCHS = int(os.environ.get("CNNJAX_LESSON_EPOCHS", "12"))
SEEDS = int(os.environ.get("CNNJAX_LESSON_SEEDS", "12"))

# %% [markdown]
# ## The data
#
# ```python
# (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
# x = x.reshape(60000, 28, 28, 1) / 255
# ```
#
# A data set is two arrays, images and labels. The images stay bytes; each batch is converted to numbers
# between 0 and 1 on the device, when it is used.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from cnnjax.data import Dataset, load, split

np.set_printoptions(precision=3, suppress=True, linewidth=100)
loaded = load(DATASET, DATA_DIR, announce=print)
train, val = split(loaded.train)
train, val = (Dataset(*(part[:IMAGES] for part in whole)) for whole in (train, val))
for name, part in (("train", train), ("validation", val), ("test", loaded.test)):
    print(f"{name:10}  images {part.images.shape} {part.images.dtype}  labels {part.labels.shape}")

images = jnp.asarray(train.images[:8], jnp.float32) / 255
figure, axes = plt.subplots(1, 8, figsize=(9, 1.5))
for axis, image, label in zip(axes, images, train.labels, strict=False):
    axis.imshow(image[..., 0], cmap="gray_r")
    axis.set_title(str(label))
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Convolution
#
# ```python
# Conv2D(10, (3, 3), activation="relu", padding="same", input_shape=(28, 28, 1))
# ```
#
# The numbers mean the same: ten kernels of 3 x 3, and an output as large as the input. The difference is
# where the weights are. A Keras layer owns its weights; a Flax layer is only a description. `init` creates
# weights from a **key**, `apply` computes with the weights you pass, and neither changes anything.

# %%
import flax.linen as nn

from cnnjax.models import Conv

layer = Conv(features=10, kernel_size=3, padding="SAME", activation=nn.relu, pooling="none")
weights = layer.init(jax.random.key(0), images)["params"]
maps = layer.apply({"params": weights}, images)
print("weights", jax.tree.map(jnp.shape, weights))
print("maps   ", maps.shape)

# %% [markdown]
# Each value of a feature map is the sum of nine pixels times the kernel's weights, plus a bias; negative
# values become zero. By hand, for one position in one image:

# %%
row, column, channel = 14, 14, 3
patch = images[0, row - 1 : row + 2, column - 1 : column + 2, 0]
by_hand = nn.relu(jnp.sum(patch * weights["kernel"][:, :, 0, channel]) + weights["bias"][channel])
print(f"by hand {by_hand:.6f}, by the layer {maps[0, row, column, channel]:.6f}")

figure, axes = plt.subplots(2, 10, figsize=(10, 2.2))
for k in range(10):
    axes[0, k].imshow(weights["kernel"][:, :, 0, k], cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    axes[1, k].imshow(maps[0, ..., k], cmap="gray_r")
for axis in axes.ravel():
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Pooling
#
# ```python
# MaxPooling2D((2, 2))
# ```
#
# Pooling reduces each 2 x 2 window to one value. Keras offers the maximum and the average; readers often ask
# about the median. Pooling has no weights, so it is a plain function.

# %%
from cnnjax.pooling import POOLING

square = jnp.array([[1.0, 2, 0, 0], [3, 9, 0, 4], [5, 5, 1, 1], [5, 5, 1, 7]])
for name in ("max", "average", "median"):
    print(f"{name:8}", POOLING[name](square[None, ..., None])[0, ..., 0].tolist())

pooled = POOLING["max"](maps)
print(maps.shape, "->", pooled.shape)

# %% [markdown]
# ## Flatten, and the dense layers
#
# ```python
# Flatten()
# Dense(100, activation="relu")
# ```
#
# Flattening turns each example into a vector. A dense layer multiplies it by a matrix and adds a bias.

# %%
from cnnjax.kernels.dense import dense

flat = pooled.reshape(len(pooled), -1)
kernel = nn.initializers.glorot_uniform()(jax.random.key(1), (flat.shape[1], 100))
hidden = nn.relu(dense(flat, kernel, jnp.zeros(100)))
print(pooled.shape, "->", flat.shape, "->", hidden.shape)
in_convolution = sum(leaf.size for leaf in jax.tree.leaves(weights))
print(f"{kernel.size + 100:,} weights in the dense layer, {in_convolution:,} in the convolution")

# %% [markdown]
# ## The network
#
# ```python
# model = Sequential([Conv2D(...), MaxPooling2D(...), Flatten(), Dropout(0.5),
#                     Dense(100, ...), Dense(10, activation="softmax")])
# model.summary()
# ```
#
# `ConvNet` combines these layers; its fields are the choices you may want to vary. It outputs logits; the
# loss applies the softmax, where it is numerically stable.

# %%
from cnnjax.deploy.layers import layers
from cnnjax.models import MODELS, ConvNet

model = ConvNet(features=(10,), kernel_size=3, padding="SAME", pooling="max", hidden=(100,))
assert model == MODELS["keras-cnn"]
for row_ in layers(model):
    print(f"{row_.name:15} {row_.kind:13} {row_.shape!s:13} {row_.parameters:8,}")

# %% [markdown]
# ## Dropout, and keys you can see
#
# ```python
# Dropout(0.5)
# ```
#
# During training, dropout sets random values to zero, so that the network cannot rely on any single one. In
# Keras, the layer has a hidden random generator. In JAX, a random function takes a **key**, and the same key
# always gives the same mask.

# %%
from cnnjax.dropout import classic_dropout, inverted_dropout

x = jnp.arange(1.0, 9.0)[None]
key, other = jax.random.split(jax.random.key(0))
print("x        ", x[0])
print("key      ", inverted_dropout(key, x, 0.5)[0])
print("key again", inverted_dropout(key, x, 0.5)[0])
print("other    ", inverted_dropout(other, x, 0.5)[0])

# %% [markdown]
# The remaining values are doubled. Without this, a sum over the values would be half as large in training as
# at test time, and the next layer would get inputs unlike those it was trained on. There are two ways to
# correct this: **classic** dropout scales all values down at test time; **inverted** dropout, which Keras and
# all current libraries use, scales the remaining values up during training, so that nothing is left to do at
# test time. With either correction, the mean over many keys in training equals the value at test time;
# without one, it does not.

# %%
keys = jax.random.split(jax.random.key(2), 10_000)
rate = 0.5
values = hidden[:1]
for name, drop in (("inverted", inverted_dropout), ("classic", classic_dropout)):
    in_training = jnp.mean(jax.vmap(lambda k, drop=drop: drop(k, values, rate))(keys))
    at_test = jnp.mean(drop(key, values, rate, deterministic=True))
    print(f"{name:8}  mean in training {in_training:.4f}, at test time {at_test:.4f}")
uncorrected = jnp.mean(jax.vmap(lambda k: classic_dropout(k, values, rate))(keys))
print(f"neither   mean in training {uncorrected:.4f}, at test time {jnp.mean(values):.4f}")

# %% [markdown]
# This was the first use of **`vmap`**: it runs a function of one key for ten thousand keys at once, without a
# loop, and without an extra axis in the function. What does that save? Here are a thousand masks, by a loop
# over a compiled function and by one compiled `vmap`:

# %%
import time


def seconds(function, *arguments):
    """Seconds that a call takes, after a first one for compilation."""
    jax.block_until_ready(function(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


one_mask = jax.jit(lambda k: inverted_dropout(k, values, rate))
by_loop = seconds(lambda ks: [one_mask(k) for k in ks], list(keys[:1000]))
by_vmap = seconds(jax.jit(jax.vmap(one_mask)), keys[:1000])
print(f"loop {1000 * by_loop:.1f} ms, vmap {1000 * by_vmap:.1f} ms: {by_loop / by_vmap:.0f} times as fast")

# %% [markdown]
# Each training step derives its key from the step number, with `fold_in(key, step)`. So any mask can be
# recomputed, and an interrupted run resumes with the same masks. A higher rate drops the same values and
# more:

# %%
step_key = jax.random.fold_in(key, 7)
for rate_ in (0.2, 0.4, 0.6):
    print(f"rate {rate_}:", inverted_dropout(step_key, x, rate_)[0])

# %% [markdown]
# ## Training, and its history
#
# ```python
# model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
# history = model.fit(x, y, epochs=12, validation_data=(x_val, y_val))
# ```
#
# In Keras, `fit` changes the model. Here, training is a function: it takes a key and hyperparameters and
# returns the final state and the history. The initial weights, the order of the images and all masks come
# from that one key. **`jit`** compiles all epochs into one program.

# %%
from cnnjax.config import HParams
from cnnjax.metrics import means
from cnnjax.optimizers import keras_adam
from cnnjax.task import Task
from cnnjax.train import to_device, train_run

device_train, device_val = to_device(train), to_device(val)


def fit(key, dropout_rate):
    """Train once; return the parameters and, per epoch, the training and validation metrics."""
    hparams = HParams(learning_rate=1e-3, dropout_rate=dropout_rate)
    state, training, validation = train_run(
        Task(model, keras_adam), key, hparams, device_train, device_val, epochs=EPOCHS, batch_size=32
    )
    return state.params, means(training), means(validation)


def timed(function, *arguments):
    """Compile a function, then time one call; return the result and the seconds of the call."""
    program = jax.jit(function).lower(*arguments).compile()
    start = time.perf_counter()
    result = jax.block_until_ready(program(*arguments))
    return result, time.perf_counter() - start


(params, history, val_history), alone = timed(fit, jax.random.key(0), jnp.float32(0.5))
for epoch in range(EPOCHS):
    print(
        f"epoch {epoch + 1}: loss {history['loss'][epoch]:.4f}  accuracy {history['accuracy'][epoch]:.4f}"
        f"  val_loss {val_history['loss'][epoch]:.4f}  val_accuracy {val_history['accuracy'][epoch]:.4f}"
    )

# %% [markdown]
# ## Does dropout help? Many seeds at once
#
# With Keras, you would now set the rate to 0, train again and compare two numbers. But another seed gives
# other numbers, so how much of the difference is chance? Training is a function of the key and the rate, so
# one compiled program can run it for many of both. On a GPU, `vmap` trains all networks side by side. On a
# CPU, one network keeps the cores busy; there, `lax.map` trains one after the other. Networks with the same
# seed have the same initial weights and batches, so they can be compared in pairs.


# %%
def over(function, arguments):
    """Call a function for every argument, on a CPU one after the other."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(function, arguments)
    return jax.vmap(function)(arguments)


def many(seeds, rates):
    """Train every seed with every rate."""
    return over(lambda rate: over(lambda seed: fit(seed, rate), seeds), rates)


seeds = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
rates = jnp.array([0.0, 0.5])
(_, history, val_history), together = timed(many, seeds, rates)
history, val_history = jax.device_get((history, val_history))
print("val_accuracy has shape (rates, seeds, epochs):", val_history["accuracy"].shape)
print(f"one network alone {alone:.1f} s; {2 * SEEDS} in one program {together / (2 * SEEDS):.1f} s each")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
losses = zip(axes, rates, history["loss"], val_history["loss"], strict=True)
for axis, rate_, training, validation in losses:
    axis.plot(np.arange(1, EPOCHS + 1), training.T, color="tab:orange", linestyle=":")
    axis.plot(np.arange(1, EPOCHS + 1), validation.T, color="tab:blue")
    axis.set(title=f"dropout rate {rate_}, one line per seed", xlabel="epoch")
axes[0].set_ylabel("loss (dotted: training, solid: validation)")
plt.show()

# %%
from cnnjax.stats import conclusion, summarise

final = val_history["accuracy"][:, :, -1]
for rate_, accuracies in zip(rates, final, strict=True):
    print(f"rate {rate_}: {100 * accuracies.mean():.2f}% +- {100 * accuracies.std(ddof=1):.2f}")
print(conclusion(summarise(final, ["rate 0", "rate 0.5"]), "validation accuracy", accuracy=True))

# %% [markdown]
# In the figure, compare the gap between dotted (training) and solid (validation) lines with and without
# dropout. The sentence below it is about these few images and epochs. For all images, twenty epochs and more
# rates, run `python experiments/dropout_ablation.py`.
#
# ## `grad`: derivatives of any function
#
# In Keras, `fit` computes the gradient of the loss with respect to the weights, and hides it. **`grad`**
# turns any function into its derivative with respect to any argument. Here is the derivative with respect
# to one bias, compared with a finite difference:

# %%
val_images = jnp.asarray(val.images[:256], jnp.float32) / 255
val_labels = jnp.asarray(val.labels[:256])


def loss(params):
    """Mean cross-entropy on validation images, without dropout."""
    log_probability = nn.log_softmax(model.apply({"params": params}, val_images))
    return -jnp.mean(log_probability[jnp.arange(len(val_labels)), val_labels])


def moved(by):
    """The loss after adding `by` to the bias of the first logit."""
    bias = params["Dense_1"]["bias"].at[0].add(by)
    return loss(params | {"Dense_1": params["Dense_1"] | {"bias": bias}})


gradient = jax.grad(loss)(params)
print(
    f"grad {gradient['Dense_1']['bias'][0]:.6f}, finite difference {(moved(0.05) - moved(-0.05)) / 0.1:.6f}"
)

# %% [markdown]
# And with respect to the image: which pixels are evidence for the label (red), and which against it (blue)?


# %%
def logit(image, label):
    """The logit of `label`."""
    return model.apply({"params": params}, image[None])[0, label]


evidence = jax.jit(jax.vmap(jax.grad(logit)))(images, jnp.asarray(train.labels[:8]))
figure, axes = plt.subplots(1, 8, figsize=(9, 1.4))
for axis, image, pixels in zip(axes, images, evidence, strict=True):
    most = float(jnp.abs(pixels).max()) / 2
    axis.imshow(pixels[..., 0], cmap="RdBu_r", vmin=-most, vmax=most)
    axis.contour(image[..., 0], levels=[0.5], colors="black", linewidths=0.6)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Prediction
#
# ```python
# model.predict(x_test[0:5]).round(2)
# ```
#
# Apply the model to weights and images, then the softmax. No key is needed, because without `train=True`
# nothing is dropped.

# %%
test_images = jnp.asarray(loaded.test.images[:5], jnp.float32) / 255
probabilities = nn.softmax(model.apply({"params": params}, test_images))
print(np.asarray(probabilities).round(2))
print("predicted", probabilities.argmax(axis=1).tolist(), " labels", loaded.test.labels[:5].tolist())

# %% [markdown]
# ## The second network
#
# ```python
# X = Input(shape=[28, 28, 1])
# H = Conv2D(3, kernel_size=5, activation="swish")(X)
# H = MaxPool2D()(H)
# H = Conv2D(6, kernel_size=5, activation="swish")(H)
# H = MaxPool2D()(H)
# H = Flatten()(H)
# H = Dense(84, activation="swish")(H)
# Y = Dense(10, activation="softmax")(H)
# ```
#
# It has two convolutions without padding, each of which trims two pixels at every border before pooling
# halves the map, and far fewer weights. The optimizer is RMSprop, Keras's default.

# %%
lenet = ConvNet(
    features=(3, 6), kernel_size=5, padding="VALID", activation=nn.swish, hidden=(84,), dropout="none"
)
for row_ in layers(lenet):
    print(f"{row_.name:15} {row_.kind:13} {row_.shape!s:13} {row_.parameters:8,}")


# %% [markdown]
# Readers often ask at this point: why pool at all? A convolution that moves two pixels at a time ("strided")
# halves the map too, with the same weights and less work. What the kind of pooling is belongs to the network,
# so each kind is compiled separately; the seeds run as before.


# %%
from cnnjax.optimizers import rmsprop


def accuracies(pooling):
    """The final validation accuracy of every seed."""

    def run(key):
        network = lenet.clone(pooling=pooling)
        arguments = (key, HParams(1e-3, 0.0), device_train, device_val)
        _, _, validation = train_run(Task(network, rmsprop), *arguments, epochs=EPOCHS, batch_size=32)
        return means(validation)["accuracy"][-1]

    return np.asarray(jax.jit(lambda seeds: over(run, seeds))(seeds))


arms = ("max", "strided")
outcome = np.stack([accuracies(pooling) for pooling in arms])
for pooling, values in zip(arms, outcome, strict=True):
    print(f"{pooling:8} {100 * values.mean():.2f}% +- {100 * values.std(ddof=1):.2f}")
print(conclusion(summarise(outcome, arms), "validation accuracy", accuracy=True))

# %% [markdown]
# ## What JAX added
#
# | Keras | here |
# |---|---|
# | a layer owns its weights | weights are arrays that you pass and get back |
# | a hidden random generator | a key that you can see, split and reuse |
# | `fit` changes the model | training is a function; `jit` compiles all of it |
# | a hidden gradient | `grad` of any function, with respect to any argument |
# | a loop over seeds | one program for all, by `vmap` or `lax.map` |
#
# `cnnjax.fit` trains a network as above with one call, and `cnnjax.ablate` makes a comparison of many seeds,
# with a table, figures and the sentence:
#
# ```python
# result = cnnjax.ablate(
#     {"max": lenet, "strided": lenet.clone(pooling="strided")},
#     "mnist",
#     optimizer="rmsprop",
#     seeds=12,
#     out="results/pooling",
# )
# print(result.conclusion)
# ```
#
# ## Exercise
#
# Is the average as good as the maximum?
#
# 1. Write down what you expect, and which difference, in percentage points, would matter to you.
# 2. Add `"average"` to `arms` above and run the cell again. What does the sentence claim, and what does it
#    leave open?
# 3. Compute the standard deviation of the paired differences `outcome[2] - outcome[0]`. How many seeds would
#    show the difference of step 1? "Why pairs, and how many seeds" in the documentation has a table.
# 4. Set `SEEDS` to that number and run the lesson again. Were you right?
