# SPDX-License-Identifier: MIT
# %% [markdown]
# # 1. From a neuron to a network
#
# A neural network is made of very small parts, and each of them is school arithmetic: multiply,
# add, look up a curve. Here we build one from nothing: first a single neuron, then a layer, then a
# network that can do what no single neuron can.
#
# You need some Python, and to know what a list of numbers is. Every number on this page is
# computed by the code above it, so you can change anything and see what happens.

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

import tilegrad as tg

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
NO_TO_YES = LinearSegmentedColormap.from_list("no to yes", ["#8fbfe0", "white", "#f2b48c"])
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})
np.set_printoptions(precision=6, suppress=True)

# %% [markdown]
# ## One neuron
#
# Should I take an umbrella? I look at two things: how much of the sky is cloudy (from 0 to 1), and
# how humid the air is (from 0 to 1). Clouds count more than humidity, and if there is little of
# both, I leave the umbrella at home. As a formula:
#
# - each input has a **weight**: 3 for clouds, 2 for humidity;
# - a **bias** says how hard I am to convince: -3;
# - the **sum** is weight times input, added up, plus the bias.
#
# With 0.9 of the sky in clouds and a humidity of 0.6:

# %%
clouds, humidity = 0.9, 0.6
z = 3 * clouds + 2 * humidity - 3
print(f"3 * 0.9 + 2 * 0.6 - 3 = {z:.1f}")

# %% [markdown]
# The sum can be any number. I would rather have something like a probability, between 0 and 1.
# That is what an **activation function** is for. The classic one is the *sigmoid*:
#
# $$\sigma(z) = \frac{1}{1 + e^{-z}}$$
#
# It turns a large negative sum into almost 0, a large positive one into almost 1, and 0 into
# exactly one half.


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


print(f"sigmoid(0.9) = {sigmoid(z):.4f}: take the umbrella")
print(f"sigmoid(0) = {sigmoid(0):.1f}, sigmoid(-5) = {sigmoid(-5):.4f}")

# %% [markdown]
# That is a complete neuron: inputs, weights, bias, sum, activation.
#
# In tilegrad a neuron is a call of `linear`. The inputs are a row of an array, the weights another
# row; `activation="sigmoid"` applies the curve in the same go. The numbers are float32, the type
# with which networks usually work: about seven digits.

# %%
x = np.array([[clouds, humidity]], np.float32)  # one day, two inputs
weight = np.array([[3, 2]], np.float32)  # one neuron, a weight for each input
bias = np.array([-3], np.float32)
umbrella = tg.linear(x, weight, bias, activation="sigmoid")
print(umbrella, "of shape", umbrella.shape)

# %% [markdown]
# The shapes are worth a look, because they never change their meaning:
#
# | array | shape | here |
# |---|---|---|
# | inputs | (samples, inputs) | (1, 2) |
# | weight | (neurons, inputs) | (1, 2) |
# | bias | (neurons,) | (1,) |
# | result | (samples, neurons) | (1, 1) |
#
# Since samples have an axis of their own, a whole week is the same call:

# %%
week = np.array(
    [[0.9, 0.6], [0.1, 0.3], [0.5, 0.5], [1.0, 0.9], [0.0, 0.8], [0.7, 0.2], [0.3, 0.9]], np.float32
)
for (c, h), p in zip(week, tg.linear(week, weight, bias, activation="sigmoid")[:, 0], strict=True):
    print(f"clouds {c:.1f}  humidity {h:.1f}  ->  {p:.2f}  {'umbrella' if p > 0.5 else '-'}")

# %% [markdown]
# ## Activation functions
#
# The sigmoid is not the only curve in use. Three that you will meet everywhere:

# %%
z = np.linspace(-4, 4, 201, dtype=np.float32)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
names, colours = ("sigmoid", "tanh", "relu"), (BLUE, ORANGE, GREEN)
for panel, name, colour in zip(axes, names, colours, strict=True):
    panel.plot(z, getattr(tg, name)(z), color=colour, linewidth=2)
    panel.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    panel.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    panel.set(title=name, xlabel="sum z")
axes[0].set_ylabel("activation")
plt.show()

# %% [markdown]
# Why a curve at all? Because **sums of sums are only sums**. Put one layer without activation
# behind another, and you have gained nothing: there is a single layer that does exactly the same.

# %%
rng = np.random.default_rng(0)
first, second = rng.normal(size=(4, 2)), rng.normal(size=(1, 4))
sample = np.array([[0.9, 0.6]])
two_layers = tg.linear(tg.linear(sample, first), second)
one_layer = tg.linear(sample, tg.matmul(second, first))
print(f"two layers {two_layers.item():.6f}, one layer {one_layer.item():.6f}")

# %% [markdown]
# A bend between the two, even one as simple as that of `relu`, and this is no longer true. The
# bends are what a network is made of.
#
# ## What one neuron cannot do
#
# Take four points: the corners of a square. A neuron answers "yes" where its sum is above zero,
# and the border between yes and no, $w_1 x_1 + w_2 x_2 + b = 0$, is a **straight line**. For "x1
# or x2" and "x1 and x2" such a line exists. For "one of them but not both", called *xor*, none
# does: the two corners that should be yes lie across from each other.

# %%
corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
wanted = {"or": [0, 1, 1, 1], "and": [0, 0, 0, 1], "xor": [0, 1, 1, 0]}
neurons = {  # weights and bias, found with pencil and paper
    "or": (np.array([[20, 20]], np.float32), np.array([-10], np.float32)),
    "and": (np.array([[20, 20]], np.float32), np.array([-30], np.float32)),
}
for name, (w, b) in neurons.items():
    answers = tg.linear(corners, w, b, activation="sigmoid")[:, 0]
    print(f"{name:4}", answers.round(3), "wanted", wanted[name])

# %% [markdown]
# ## Two neurons and a third: a network
#
# But xor is "or, and not and". We have a neuron for *or* and one for *and*; a third can combine
# the two. Neurons side by side, with the same inputs, are a **layer**; the rows of its weight
# array are the neurons. A layer that feeds another is a **hidden** layer.

# %%
hidden_weight = np.array([[20, 20], [20, 20]], np.float32)  # or; and
hidden_bias = np.array([-10, -30], np.float32)
output_weight = np.array([[20, -20]], np.float32)  # or, but not and
output_bias = np.array([-10], np.float32)

hidden = tg.linear(corners, hidden_weight, hidden_bias, activation="sigmoid")
xor = tg.linear(hidden, output_weight, output_bias, activation="sigmoid")
for corner, h, y in zip(corners, hidden, xor[:, 0], strict=True):
    print(f"x {corner}   or, and {h.round(3)}   xor {y:.3f}")


# %%
def show(panel, answer, points, labels, title):
    """Colour the plane by the answer, and put the points on it."""
    low, high = points.min() - 0.3, points.max() + 0.3
    grid = np.stack(np.meshgrid(*2 * [np.linspace(low, high, 80, dtype=np.float32)]), axis=-1)
    plane = answer(grid.reshape(-1, 2)).reshape(80, 80)
    panel.contourf(grid[..., 0], grid[..., 1], plane, levels=np.linspace(0, 1, 21), cmap=NO_TO_YES)
    for value, colour, marker in ((0, BLUE, "o"), (1, ORANGE, "s")):
        chosen = points[np.asarray(labels) == value]
        panel.scatter(*chosen.T, c=colour, marker=marker, s=30, edgecolor="white", linewidth=0.6)
    panel.set(title=title, xlabel="x1", ylabel="x2", aspect="equal")


def one_neuron(name):
    return lambda points: tg.linear(points, *neurons[name], activation="sigmoid")


def network(points):
    hidden = tg.linear(points, hidden_weight, hidden_bias, activation="sigmoid")
    return tg.linear(hidden, output_weight, output_bias, activation="sigmoid")


figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
show(axes[0], one_neuron("or"), corners, wanted["or"], "or: one neuron")
show(axes[1], one_neuron("and"), corners, wanted["and"], "and: one neuron")
show(axes[2], network, corners, wanted["xor"], "xor: three neurons")
plt.show()

# %% [markdown]
# Blue circles should be "no", orange squares "yes"; the colour behind is the answer. One neuron
# cuts the plane in two; the network of three has made a band.
#
# ## The same on paper
#
# Here is a network small enough to follow with a pocket calculator: two inputs, both 1; three
# hidden neurons with a sigmoid; one output that only adds up. No biases. Try it: the first hidden
# sum is 0.8 * 1 + 0.2 * 1.

# %%
x = np.array([[1, 1]], np.float32)
w1 = np.array([[0.8, 0.2], [0.4, 0.9], [0.3, 0.5]], np.float32)
w2 = np.array([[0.3, 0.5, 0.9]], np.float32)
hidden, sums = tg.linear(x, w1, activation="sigmoid", save_preactivation=True)
output = tg.linear(hidden, w2)
print("sums   ", sums[0])
print("hidden ", hidden[0])
print(f"output  {output.item():.6f}")

# %% [markdown]
# If the answer should have been 0, how wrong is 1.2332? The usual measure is the squared error,
# and averaged over all samples it is the **mean squared error**, a first example of a **loss**:
# one number that says how bad the network is.

# %%
target = np.array([[0]], np.float32)
print(f"loss {tg.mse_loss(output, target):.6f} = {output.item():.6f} squared")

# %% [markdown]
# ## Learning instead of setting
#
# With pencil and paper we found weights for xor. Nobody finds those of a large network that way.
# They are **learned**: begin with random weights, measure the loss, change every weight a little
# so that the loss falls, and do that again a few hundred times. How to know which way to change
# them is the subject of the [next page](2_chain_rule.ipynb); here we only watch.
#
# The task: which points lie in the inner ring, which in the outer?

# %%
count = 200
angle = rng.uniform(0, 2 * np.pi, count)
labels = np.arange(count) % 2
radius = np.where(labels == 1, 0.5, 1.2) + rng.normal(0, 0.13, count)
points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def learn(model, steps=500):
    """Let a model learn to tell the rings apart; return its loss before each step."""
    optimizer = tg.optim.Adam(model.parameters(), lr=0.02)
    step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), optimizer)  # measure, change the weights
    return [float(step(points, labels)) for _ in range(steps)]


def probability(model):
    return lambda points: tg.softmax(model.predict(points), dim=1)[:, 1]


tg.manual_seed(0)
straight = tg.nn.Linear(2, 2)  # two scores: one for each ring
bent = tg.nn.Sequential(tg.nn.Linear(2, 8, activation="tanh"), tg.nn.Linear(8, 2))
losses = {"no hidden layer": learn(straight), "8 hidden neurons": learn(bent)}
accuracies = {}
for name, model in (("no hidden layer", straight), ("8 hidden neurons", bent)):
    accuracies[name] = np.mean(model.predict(points).argmax(axis=1) == labels)
    first, last = losses[name][0], losses[name][-1]
    print(f"{name:17} loss {first:.3f} to {last:.3f}, {accuracies[name]:.0%} right")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained")
show(axes[0], probability(straight), points, labels, "no hidden layer")
show(axes[1], probability(bent), points, labels, "8 hidden neurons")
for (name, values), colour in zip(losses.items(), (ORANGE, BLUE), strict=True):
    axes[2].plot(values, color=colour, label=name)
axes[2].set(title="learning", xlabel="step", ylabel="loss", ylim=0)
axes[2].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Without a hidden layer there is only a straight line to be had, and no line parts two rings: the
# answer stays near one half, the picture pale. Eight bends are enough for a closed curve. Nobody
# told the network what a ring is.
#
# ## What to remember
#
# - A **neuron** is a weighted sum plus a bias, passed through an activation function.
# - A **layer** is many neurons with the same inputs: one matrix product, `tg.linear`.
# - Without a bend between them, layers collapse into one.
# - A **network** is layers in a row; it can do what no neuron can.
# - **Learning** is changing all weights a little so that the loss falls, many times.
#
# Next: [how a network knows which way to change its weights](2_chain_rule.ipynb).
