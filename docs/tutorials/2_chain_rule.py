# SPDX-License-Identifier: MIT
# %% [markdown]
# # 2. The chain rule, by hand
#
# On the [first page](1_neuron_to_network.ipynb) a network learned by changing every weight "a
# little, so that the loss falls". This page is about the one hard word in that sentence: *so
# that*. Which way, and how much? The answer is called **back-propagation**, and it is nothing but
# the chain rule of school, applied once for each link between a weight and the loss.
#
# We do it by hand, and check every single number by a method that is slow but cannot be
# misunderstood.

# %%
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import tilegrad as tg

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6b6b6b"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})
np.set_printoptions(precision=6, suppress=True)

# %% [markdown]
# ## How steep is it here?
#
# The smallest network of all: one input $x = 2$, one weight $w = 3$, the output is $w x$, and it
# should have been $y = 5$. The loss is the squared error, $L = (w x - y)^2$.
#
# To find out what happens to the loss when the weight changes, change the weight:

# %%
x, y = 2.0, 5.0


def loss(w):
    return (w * x - y) ** 2


step = 0.001
print(f"loss at w = 3      {loss(3):.6f}")
print(f"loss at w = 3.001  {loss(3 + step):.6f}")
print(f"change per unit    {(loss(3 + step) - loss(3)) / step:.6f}")

# %% [markdown]
# About 4: where we stand, the loss grows four times as fast as the weight. That number is the
# **slope**, or **derivative**, of the loss. It is positive, so to make the loss smaller we make
# the weight smaller.
#
# What we did is a **finite difference**: take a small step, divide the change by the step. It is
# not quite 4, since the loss is curved and we looked only to one side. Looking to both sides is
# much better:

# %%
print(f"both sides         {(loss(3 + step) - loss(3 - step)) / (2 * step):.6f}")

# %% [markdown]
# ## The chain rule
#
# Now exactly, and without any step. From the weight to the loss there are three links, each so
# simple that its slope is known:
#
# | link | formula | slope |
# |---|---|---|
# | output | $o = w x$ | $\partial o / \partial w = x$ |
# | error | $e = o - y$ | $\partial e / \partial o = 1$ |
# | loss | $L = e^2$ | $\partial L / \partial e = 2 e$ |
#
# If $o$ grows twice as fast as $w$, and $e$ as fast as $o$, and $L$ twice as fast as $e$, then $L$
# grows four times as fast as $w$. Slopes along a chain **multiply**. That is the whole chain rule:
#
# $$\frac{\partial L}{\partial w} =
#   \frac{\partial L}{\partial e} \cdot \frac{\partial e}{\partial o} \cdot
#   \frac{\partial o}{\partial w}
#   = 2 e \cdot 1 \cdot x$$

# %%
w = 3.0
o = w * x  # forward: from the weight to the loss
e = o - y
print(f"o = {o:.0f}, e = {e:.0f}, loss = {e**2:.0f}")
d_e = 2 * e  # backward: from the loss to the weight
d_o = d_e * 1
d_w = d_o * x
print(f"slope for e: {d_e:.0f}, for o: {d_o:.0f}, for w: {d_w:.0f}")

# %% [markdown]
# Note the names: `d_w` is short for "the slope of the loss with respect to w". Every value of the
# forward pass gets such a partner in the backward pass, in the opposite order.
#
# ## A whole network
#
# The same for two inputs, three hidden neurons with a sigmoid and one output: 13 numbers to learn,
# so 13 slopes to find. All of them together are called the **gradient**.

# %%
x = np.array([[1.0, 1.0]])
y = np.array([[0.0]])
parameters = {
    "w1": np.array([[-0.0053, 0.3793], [-0.5820, -0.5204], [-0.2723, 0.1896]]),
    "b1": np.array([-0.0140, 0.5607, -0.0628]),
    "w2": np.array([[0.1528, -0.1745, -0.1135]]),
    "b2": np.array([-0.5516]),
}


def forward(w1, b1, w2, b2):
    z = x @ w1.T + b1  # sums of the hidden neurons
    a = 1 / (1 + np.exp(-z))  # sigmoid
    o = a @ w2.T + b2  # output
    return z, a, o, np.mean((o - y) ** 2)


z, a, o, value = forward(**parameters)
print("sums   ", z[0])
print("hidden ", a[0])
print(f"output  {o.item():.6f}")
print(f"loss    {value:.6f}")

# %% [markdown]
# Backward, link by link. Three rules are new, and they are all there is:
#
# 1. **A weight** multiplies what comes in. So its slope is *what comes in* times the slope of the
#    sum.
# 2. **A bias** is added to the sum. So its slope *is* the slope of the sum.
# 3. **The sigmoid** has the slope $a (1 - a)$, where $a$ is its own result: steepest in the
#    middle, and almost flat at both ends.
#
# And to pass on to the layer before: what comes in has been multiplied by the weight, so its slope
# is the *weight* times the slope of the sum.

# %%
d_o = 2 * (o - y)  # the loss is (o - y)^2
d_w2 = d_o.T @ a  # rule 1: what came in was a
d_b2 = d_o.sum(axis=0)  # rule 2
d_a = d_o @ parameters["w2"]  # passed on to the hidden layer
d_z = d_a * a * (1 - a)  # rule 3
d_w1 = d_z.T @ x  # rule 1 again: what came in was x
d_b1 = d_z.sum(axis=0)  # rule 2 again
by_hand = {"w1": d_w1, "b1": d_b1, "w2": d_w2, "b2": d_b2}
for name, gradient in by_hand.items():
    print(name, gradient.round(6).tolist())

# %% [markdown]
# ## Is that right?
#
# Nobody should believe thirteen numbers because they look plausible. So we do to each parameter
# what we did to $w$ above: move it a little to both sides, and see what the loss does.


# %%
def finite_differences(step=1e-5):
    gradients = {}
    for name, values in parameters.items():
        gradients[name] = np.zeros_like(values)
        for i in np.ndindex(values.shape):
            sides = []
            for moved in (values[i] + step, values[i] - step):
                changed = values.copy()
                changed[i] = moved
                sides.append(forward(**{**parameters, name: changed})[-1])
            gradients[name][i] = (sides[0] - sides[1]) / (2 * step)
    return gradients


checked = finite_differences()
print("parameter     by hand       checked   difference")
for name, gradient in by_hand.items():
    for i in np.ndindex(gradient.shape):
        hand, check = gradient[i], checked[name][i]
        print(f"{name}{list(i)!s:8} {hand:12.8f}  {check:12.8f}   {abs(hand - check):.0e}")

# %% [markdown]
# They agree to ten digits after the point. Why not to all? The step is to blame, in two ways. If
# it is long, the curve bends away under it. If it is short, the two losses are almost equal, and
# subtracting them leaves little but the error of rounding. In between lies a best step; and in
# float32, with its seven digits, the best is not good: that is why gradients are checked in
# float64. Here for one of the hidden biases:

# %%
steps = 10.0 ** np.arange(-12, 0)
errors = {}
for dtype in (np.float64, np.float32):
    slopes = []
    for h in steps.astype(dtype):
        sides = []
        for sign in (1, -1):
            moved = {name: values.astype(dtype) for name, values in parameters.items()}
            moved["b1"][1] += dtype(sign) * h  # one bias of the hidden layer
            w1, b1, w2, b2 = moved.values()
            hidden = tg.linear(x.astype(dtype), w1, b1, activation="sigmoid")
            sides.append(tg.mse_loss(tg.linear(hidden, w2, b2), y.astype(dtype)))
        slopes.append(float(sides[0] - sides[1]) / (2 * float(h)))
    errors[dtype.__name__] = np.abs(np.array(slopes) - d_b1[1]) + 1e-16

figure, panel = plt.subplots(figsize=(6, 3.2), layout="constrained")
for (name, values), colour, marker in zip(errors.items(), (BLUE, ORANGE), "os", strict=True):
    panel.loglog(steps, values, marker + "-", color=colour, label=name, markersize=4)
panel.set(xlabel="step", ylabel="error of the slope", title="Finite differences: the step matters")
panel.legend(frameon=False)
plt.show()
for name, values in errors.items():
    print(f"{name}: best step {steps[values.argmin()]:.0e}, error {values.min():.0e}")

# %% [markdown]
# ## The same as functions
#
# Every function of tilegrad has a partner that goes back, named `..._backward`. It takes the slope
# of the result and returns those of the inputs. What we wrote by hand is three calls:

# %%
w1, b1, w2, b2 = parameters.values()
hidden = tg.linear(x, w1, b1, activation="sigmoid")
output = tg.linear(hidden, w2, b2)
value, d_output = tg.mse_loss_value_and_grad(output, y)
d_hidden, d_w2, d_b2 = tg.linear_backward(d_output, hidden, w2, b2)
d_x, d_w1, d_b1 = tg.linear_backward(d_hidden, x, w1, b1, activation="sigmoid")
for name, gradient in {"w1": d_w1, "b1": d_b1, "w2": d_w2, "b2": d_b2}.items():
    print(f"{name}: largest difference to ours {np.abs(gradient - by_hand[name]).max():.0e}")

# %% [markdown]
# `linear_backward` also returned `d_x`, the slope for the inputs. Here nobody needs it; in a
# deeper network it is what the layer before receives. Each input goes into three neurons, and its
# slope is the **sum** over the three ways: where a value is used several times, its slopes add up.

# %%
ways = d_z[0] * w1[:, 0]
print("first input, by each hidden neuron", ways, "together", f"{ways.sum():.6f}")
print("as linear_backward has it         ", f"{d_x[0, 0]:.6f}")

# %% [markdown]
# And as layers, where the model keeps what it needs between the two passes:

# %%
model = tg.nn.Sequential(
    tg.nn.Linear(2, 3, activation="sigmoid", dtype="float64"), tg.nn.Linear(3, 1, dtype="float64")
)
for parameter, values in zip(model.parameters(), parameters.values(), strict=True):
    parameter.data = values
loss_fn = tg.nn.MSELoss()
value = loss_fn(model(x), y)
model.backward(loss_fn.backward())
print("the slope of b2:", model[1].bias.grad)

# %% [markdown]
# ## A check that you can use
#
# Whoever writes a backward pass of their own should check it. `tg.gradcheck` does what we did
# above, for any function, and names the worst element:

# %%
print(tg.gradcheck(model, x))


# %% [markdown]
# What if we had made a mistake, say forgotten the slope of the sigmoid? Then the check finds it:


# %%
def careless_backward(grad_output, z):
    a = tg.sigmoid(z)
    return grad_output * a  # should be a * (1 - a)


try:
    tg.gradcheck(tg.sigmoid, z, backward=careless_backward)
except tg.GradcheckError as error:
    found = str(error)
    print(found)

# %% [markdown]
# ## Downhill
#
# The gradient points uphill. So a step of learning is: from every parameter subtract its slope,
# times a small number, the **learning rate**. A hundred such steps:

# %%
optimizer = tg.optim.SGD(model.parameters(), lr=0.01)
losses = []
for _ in range(100):
    optimizer.zero_grad()  # slopes add up until they are cleared
    losses.append(float(loss_fn(model(x), y)))
    model.backward(loss_fn.backward())
    optimizer.step()
print(f"loss {losses[0]:.6f} at first, {losses[-1]:.6f} at last")
print(f"output {model.predict(x).item():.6f}; wanted {y.item():.0f}")

figure, panel = plt.subplots(figsize=(6, 3), layout="constrained")
panel.semilogy(range(1, 101), losses, color=BLUE)
panel.set(xlabel="step", ylabel="loss", title="A hundred steps downhill")
plt.show()

# %% [markdown]
# ## Why not finite differences for everything?
#
# They are simple, and they work: `examples/worked_network.py` walks the same hundred steps with
# them. But each parameter needs passes of its own, while one backward pass yields all slopes, for
# about twice the work of one forward pass. Counted in multiplications:

# %%
print("network           parameters    differences   back-propagation")
for sizes in ((2, 3, 1), (64, 32, 10), (784, 512, 512, 10)):
    layers = list(pairwise(sizes))
    weights = sum(n * m for n, m in layers)
    count = weights + sum(sizes[1:])
    differences = 2 * count * weights  # two forward passes for each parameter
    back = 3 * weights - sizes[0] * sizes[1]  # forward, d_w, and d_x but for the first layer
    name = "-".join(map(str, sizes))
    print(f"{name:16} {count:11,} {differences:14.1e} {back:18.1e}")
days = differences / back / (24 * 60 * 60)
print(f"what the one does in a second takes the other {days:.1f} days")

# %% [markdown]
# The last network is a usual one for small images.
#
# ## What to remember
#
# - The slope of the loss with respect to a parameter says which way, and how much, to change it.
# - Along a chain slopes multiply; where ways meet again they add.
# - Backward, every link needs only the slope that comes from behind and what it saw in the forward
#   pass.
# - Finite differences are too slow to learn with, and just right to check with.
#
# Next: [softmax and cross-entropy](3_softmax_cross_entropy.ipynb), the loss of nearly every
# classifier.
