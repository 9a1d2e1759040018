# SPDX-License-Identifier: MIT
# %% [markdown]
# # 3. Softmax and cross-entropy
#
# A network that tells classes apart ends in one number for each class: a **score**. How do scores
# become probabilities? And how wrong is an answer, as one number that training can make smaller?
# The answers are **softmax** and **cross-entropy**. Libraries have one function for both, and this
# page shows that this is more than a convenience: apart they give wrong numbers, and are slow. It
# builds on the [first](1_neuron_to_network.ipynb) and [second](2_chain_rule.ipynb) page.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

import tilegrad as tg

BLUE, ORANGE, GREEN = COLOURS = "#0072B2", "#D55E00", "#009E73"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})
np.set_printoptions(precision=6, suppress=True)

# %% [markdown]
# ## From scores to shares
#
# A picture comes in, and out come three scores. Probabilities must be positive with the sum 1.
# So take the exponential of each score, which is always positive, and divide by the sum:
#
# $$p_i = \frac{e^{x_i}}{\sum_k e^{x_k}}$$

# %%
names = ["cat", "dog", "owl"]
scores = np.array([2.0, 1.0, -1.0])
exponentials = np.exp(scores)
shares = exponentials / exponentials.sum()
print("scores       ", scores)
print("exponentials ", exponentials, f"sum {exponentials.sum():.6f}")
print("shares       ", shares, f"sum {shares.sum():.6f}")
print("tg.softmax   ", tg.softmax(scores, dim=0))

figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
titles = ("scores", "exponentials", "shares")
for panel, title, values in zip(axes, titles, (scores, exponentials, shares), strict=True):
    bars = panel.bar(names, values, color=COLOURS, width=0.6)
    panel.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
    panel.axhline(0, color="0.4", linewidth=0.8)
    panel.margins(y=0.15)
    panel.set(title=title)
plt.show()

# %% [markdown]
# The order stays, the differences grow: one more in the score makes the share $e$ times as large as
# that of the other class. Only **differences** matter. Add the same number to every score, and each
# exponential is multiplied by the same factor, which the division takes out again:

# %%
print("ratio of the first two shares", f"{shares[0] / shares[1]:.6f}, e is {np.e:.6f}")
print("all scores 10 higher         ", tg.softmax(scores + 10, dim=0))

# %% [markdown]
# ## Why the largest score is subtracted
#
# Exponentials grow fast, and a computer's numbers have an end. In float32 it is near $3 \cdot
# 10^{38}$, and what lies beyond is called infinite:

# %%
print("largest float32   ", np.finfo(np.float32).max)
with np.errstate(over="ignore"):  # NumPy would warn, and rightly so
    for x in (88, 89):
        print(f"exp({x}) in float32", np.exp(np.float32(x)))

# %% [markdown]
# A score of 89 is nothing special, and it turns the formula into "infinite divided by infinite",
# which is no number (nan). But only differences matter! So subtract the largest score from all of
# them first. Then the largest exponential is 1, all others lie between 0 and 1, and nothing can
# overflow. What is too small becomes 0, and next to a 1 that is the right answer.

# %%
large = (scores + 1000).astype(np.float32)
with np.errstate(over="ignore", invalid="ignore"):
    overflown = np.exp(large) / np.exp(large).sum()
shifted = np.exp(large - large.max())
print("scores           ", large)
print("as written       ", overflown)
print("largest taken off", shifted / shifted.sum())
print("tg.softmax       ", tg.softmax(large, dim=0))

# %% [markdown]
# ## Two classes are a sigmoid
#
# With two scores $a$ and $b$ the first share is $e^a / (e^a + e^b)$. Divide top and bottom by
# $e^a$, and it is $1 / (1 + e^{-(a - b)})$: the sigmoid of the difference. So the sigmoid that a
# single neuron had on the first page was a softmax all the time, with the second score fixed at 0.

# %%
rng = np.random.default_rng(0)
pairs = rng.normal(scale=3, size=(1000, 2))
of_softmax = tg.softmax(pairs, dim=1)[:, 0]
of_sigmoid = tg.sigmoid(pairs[:, 0] - pairs[:, 1])
print(f"largest difference in {len(pairs)} pairs: {np.abs(of_softmax - of_sigmoid).max():.0e}")

# %% [markdown]
# ## How wrong is it?
#
# The network says "cat with 0.88", and it is a cat. How wrong is that? **Cross-entropy** looks at
# one share only, that of the right class, and takes the logarithm of it, with a minus:
#
# $$L = -\ln p_t$$

# %%
for p in (1, 0.88, 0.5, 0.1, 0.01):
    print(f"-ln {p:<4} = {np.log(1 / p):.6f}")

# %% [markdown]
# A sure and right answer costs nothing; to be sure and wrong is the worst that can be done.
#
# Why a logarithm? The probability of being right a hundred times is the *product* of a hundred
# shares; the logarithm makes it a sum. The loss of a batch is the mean over its samples.

# %%
guesses = np.log(np.array([[0.88, 0.07, 0.05], [0.25, 0.5, 0.25]]))  # scores with these shares
right = np.array([0, 1])  # a cat, a dog
each = tg.cross_entropy(guesses, right, reduction="none")
print("each", each, f"mean {tg.cross_entropy(guesses, right):.6f}")
ignorant = tg.cross_entropy(np.zeros((1, 10)), np.array([3]))
print(f"ten classes, all scores equal: {ignorant:.6f}; ln 10 = {np.log(10):.6f}")

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
z = np.linspace(-6, 6, 101)
axes[0].plot(z, tg.sigmoid(z), color=BLUE, linewidth=2, label="sigmoid of z")
some = z[::10]
two = tg.softmax(np.stack([some, np.zeros_like(some)], axis=1), dim=1)[:, 0]
axes[0].plot(some, two, "o", color=ORANGE, markersize=5, label="softmax of (z, 0)")
axes[0].set(title="Two classes", xlabel="difference of the scores z", ylabel="share")
axes[0].legend(frameon=False, fontsize=9)
p = np.linspace(0.005, 1, 400)
axes[1].plot(p, -np.log(p), color=BLUE, linewidth=2)
axes[1].plot([0.88], [-np.log(0.88)], "o", color=ORANGE)
axes[1].text(0.8, 0.75, f"0.88 costs {-np.log(0.88):.6f}", ha="center", fontsize=9)
axes[1].set(title="Cross-entropy", xlabel="share of the right class", ylabel="loss", ylim=0)
plt.show()

# %% [markdown]
# The last line is worth remembering: a network that has not learned anything yet should begin near
# the logarithm of the number of classes.
#
# ## First trap: the logarithm of a softmax
#
# The obvious way is: softmax, then logarithm. Let one score lie 1000 above the other, and let the
# *other* be right. In truth the loss is 1000. But the share of the other class is $e^{-1000}$, far
# too small for float32 and for float64 too. It becomes 0, and its logarithm is minus infinity.
#
# The way out is to do the logarithm by hand, before any number is computed. With $m$ the largest
# score:
#
# $$\ln p_i = \ln \frac{e^{x_i - m}}{\sum_k e^{x_k - m}} = x_i - m - \ln \sum_k e^{x_k - m}$$
#
# The logarithm has met the exponential of the numerator, and both are gone. The sum that is left
# lies between 1 and the number of classes: harmless. This is `log_softmax`.

# %%
far = np.array([[1000, 0]], np.float32)
share = tg.softmax(far, dim=1)
with np.errstate(divide="ignore"):
    print("softmax      ", share[0])
    print("log(softmax) ", np.log(share)[0])
    print("log_softmax  ", tg.log_softmax(far, dim=1)[0])
print("loss if the second is right", tg.cross_entropy(far, np.array([1])))

gaps = np.arange(0, 131, dtype=np.float32)
pairs = np.stack([gaps, np.zeros_like(gaps)], axis=1)
with np.errstate(divide="ignore"):
    two_steps = -np.log(tg.softmax(pairs, dim=1))[:, 1]
one_step = -tg.log_softmax(pairs, dim=1)[:, 1]
last = int(np.flatnonzero(np.isfinite(two_steps))[-1])
print(f"the last gap with a finite log(softmax): {gaps[last]:.0f}")
for gap in (50, 95, 103):
    print(f"gap {gap}: log(softmax) {-two_steps[gap]:.6f}, log_softmax {-one_step[gap]:.6f}")

figure, panel = plt.subplots(figsize=(6, 3.1), layout="constrained")
panel.plot(gaps, one_step, color=BLUE, linewidth=2, label="-log_softmax")
panel.plot(gaps, two_steps, color=ORANGE, linewidth=2, linestyle="--", label="-log(softmax)")
panel.plot(gaps[last], two_steps[last], "o", color=ORANGE, markersize=5)
panel.annotate(
    f"infinite beyond {gaps[last]:.0f}", (gaps[last], two_steps[last]), (-8, 8), fontsize=9,
    textcoords="offset points", color=ORANGE, ha="right",
)  # fmt: skip
panel.set(title="Sure and wrong, in float32", xlabel="gap between the scores", ylabel="loss")
panel.legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# The two steps do not even fail at once: shortly before the end their numbers are already wrong,
# because numbers that small have fewer digits left.
#
# ## The gradient: p - q
#
# To learn, the network needs the slope of the loss for each score. By the formula above
#
# $$L = \ln \sum_k e^{x_k} - x_t$$
#
# Change one score $x_i$ a little. The first part is a chain of two links: the slope of $\ln s$ is
# $1 / s$, and that of $s = \sum e^{x_k}$ is $e^{x_i}$; multiplied they are $e^{x_i} / s$, and that
# is $p_i$ itself. The second part has the slope 1 if $i$ is the right class $t$, and else 0. Call
# that $q_i$: it is what the shares *should* be. So
#
# $$\frac{\partial L}{\partial x_i} = p_i - q_i$$
#
# What the network said, less what it should have said.

# %%
p = tg.softmax(scores, dim=0)
q = np.array([0.0, 1.0, 0.0])  # it was a dog
by_hand = p - q


def loss_of(x):
    return np.log(np.exp(x).sum()) - x[1]


step = 1e-5
by_differences = np.array(
    [(loss_of(scores + step * e) - loss_of(scores - step * e)) / (2 * step) for e in np.eye(3)]
)
print("p                  ", p)
print("p - q              ", by_hand, f"sum {abs(by_hand.sum()):.0e}")
print("central differences", by_differences)
print("value_and_grad     ", tg.cross_entropy_value_and_grad(scores, np.array(1))[1])

figure, panel = plt.subplots(figsize=(7, 3), layout="constrained")
series = {"p: said": p, "q: right": q, "gradient: p - q": by_hand}
for shift, (name, values), colour in zip((-0.27, 0, 0.27), series.items(), COLOURS, strict=True):
    bars = panel.bar(np.arange(3) + shift, values, 0.25, color=colour, label=name)
    panel.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
panel.axhline(0, color="0.4", linewidth=0.8)
panel.set_xticks(range(3), names)
panel.set(title="It was a dog", ylim=(-1, 1.3))
panel.legend(frameon=False, fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# The slopes add up to 0 (to within rounding): what the right class gains, the others lose. A step
# downhill raises the score of the dog, and lowers that of the cat, which was believed most.
#
# Nothing in this needed $q$ to be a single 1. If the right answer is itself a list of shares
# ("seven of ten people saw a dog"), the loss is $-\sum_k q_k \ln p_k$, the gradient $p - q$ again.
# `gradcheck` compares with central differences for us:

# %%
opinions = np.array([[0.2, 0.7, 0.1], [0.0, 0.5, 0.5]])
checked = tg.gradcheck(tg.cross_entropy, (rng.normal(size=(2, 3)), opinions), wrt="input")
print(checked)

# %% [markdown]
# ## Second trap: the gradient in two steps
#
# Suppose you have a softmax with a backward pass, and write the loss yourself. The slope of $-\ln
# p_t$ for the share $p_t$ is $-1 / p_t$; hand that to `softmax_backward`, and the chain rule does
# the rest. On paper the result is $p - q$. In numbers, where the network was very sure and wrong:

# %%
d_share = np.zeros_like(share)
with np.errstate(divide="ignore", invalid="ignore"):
    d_share[0, 1] = -1 / share[0, 1]
    two_step_gradient = tg.softmax_backward(d_share, far, dim=1, output=share)
_, one_step_gradient = tg.cross_entropy_value_and_grad(far, np.array([1]))
print("in two steps", two_step_gradient[0])
print("in one      ", one_step_gradient[0])

# %% [markdown]
# Infinite times zero is no number. And this is the very sample from which there is most to learn;
# worse, the nan goes into every weight at the next update, and the network is lost. Made as one
# function, the division by $p_t$ never takes place. That is the first reason why softmax and
# cross-entropy are **fused**.
#
# ## The second reason: bytes
#
# A language model has a score for each of many thousand words. To fetch one from memory and write
# its slope takes far longer than the few sums in between, so the time is a matter of how often each
# score is moved. Count it, four bytes a score:
#
# - **Separate functions**: softmax reads the scores for their sum, reads them again and writes the
#   shares; its backward pass reads the shares and their slopes, twice as well, and writes the
#   gradient.
# - **`three_pass`**: one function. It reads the scores for their maximum, again for the sum, again
#   for the gradient, which it writes.
# - **`online_warp`**: maximum and sum in one read, by a trick below. **`block_row`** does the same
#   with more threads for a row.
# - **`one_pass`**: the row of scores waits on the chip, where there is room for it, until its sum
#   is known. Each score is read once and written once. Less is not possible.
#
# The trick: keep the largest score so far, $m$, and the sum so far of $e^{x - m}$. When a larger
# score $m'$ turns up, every term of the sum should have been $e^{x - m'}$ instead, so multiply the
# sum by $e^{m - m'}$ and go on.

# %%
row = np.array([1.0, 3.0, 2.0, 5.0, 4.0])
m, s = -np.inf, 0.0
for x in row:
    larger = max(m, x)
    s = s * np.exp(m - larger) + np.exp(x - larger)
    m = larger
    print(f"score {x:.0f}   largest {m:.0f}   sum {s:.6f}")
two_passes = np.exp(row - row.max()).sum()
print(f"in two passes   {row.max():.0f}   sum {two_passes:.6f}")

# %% [markdown]
# tilegrad has each of these as a kernel for NVIDIA's GPUs, and runs them without one, too: on the
# device `"sim"`, where `tg.sim.trace()` watches every access to memory. So we need not believe that
# count. Memory moves in **sectors** of 32 bytes; here is how many bytes are moved for a score.

# %%
rows, classes = 32, 4000
logits = tg.asarray(rng.normal(size=(rows, classes)).astype(np.float32), device="sim")
targets = tg.asarray(rng.integers(0, classes, rows), device="sim")
d_shares = tg.zeros((rows, classes), device="sim")


def separate():
    shares = tg.softmax(logits, dim=1)
    tg.softmax_backward(d_shares, logits, dim=1, output=shares)


def traffic_of(call, *arguments, **options):
    with tg.sim.trace("forward/eager") as found:
        call(*arguments, **options)
    assert not found.races
    sites = [site for site in found.sites if site.space == "global"]
    sectors = [sum(site.sectors for site in sites if site.op == op) for op in ("load", "store")]
    return 32 * np.array(sectors) / (rows * classes)


traffic = {"separate functions": traffic_of(separate)}
for rung in ("three_pass", "online_warp", "block_row", "one_pass"):
    traffic[rung] = traffic_of(tg.cross_entropy_value_and_grad, logits, targets, variant=rung)
for name, (read, written) in traffic.items():
    print(f"{name:20} {read:5.2f} bytes read {written:5.2f} written {read + written:6.2f} in all")

figure, panel = plt.subplots(figsize=(7, 2.9), layout="constrained")
read, written = np.array(list(traffic.values())[::-1]).T
panel.barh(list(traffic)[::-1], read, color=BLUE, height=0.6, label="read")
bars = panel.barh(range(len(read)), written, left=read, color=ORANGE, height=0.6, label="written")
panel.bar_label(bars, [f"{total:.1f}" for total in read + written], padding=4, fontsize=9)
panel.set(title="Traffic to memory for each score", xlabel="bytes", xlim=(0, 36))
panel.legend(frameon=False, fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# What goes beyond multiples of four is the targets and a few numbers for each row. And the count of
# the separate functions is a kind one: somebody must write the slopes of the shares, too. (How the
# kernels are made: [the ladder](../cross-entropy-ladder.md).)
#
# ## And in time?
#
# A trace has no clock, your processor has. The same on the CPU: separate against fused. Timings
# depend on the machine and on what else it is doing, so only the ratio is printed, of the fastest
# of several rounds each.

# %%
x = rng.normal(size=(256, 10_000)).astype(np.float32)
t = rng.integers(0, x.shape[1], len(x))
at = np.arange(len(x))


def separate_functions():
    p = tg.softmax(x, dim=1)
    loss = -np.log(p[at, t]).mean()
    d_p = np.zeros_like(p)
    d_p[at, t] = -1 / (len(x) * p[at, t])
    return loss, tg.softmax_backward(d_p, x, dim=1, output=p)


def fused():
    return tg.cross_entropy_value_and_grad(x, t)


calls = (separate_functions, fused)
seconds = dict.fromkeys(calls, np.inf)
for _ in range(5):
    for call in calls:
        start = time.perf_counter()
        loss, gradient = call()
        seconds[call] = min(seconds[call], time.perf_counter() - start)
        assert np.allclose(gradient, fused()[1], rtol=1e-4, atol=1e-7)  # the same numbers
ratio = seconds[separate_functions] / seconds[fused]
print(f"separate functions take {ratio:.1f} times as long as the fused one")

# %% [markdown]
# ## What to remember
#
# - **Softmax** makes positive shares with sum 1 of any scores; for two classes it is a **sigmoid**.
#   Only differences matter: subtract the **largest score** first, and nothing can overflow.
# - **Cross-entropy** is minus the logarithm of the share of the right class.
# - Never take the logarithm of a softmax: use `log_softmax`, or better `cross_entropy` with the
#   scores themselves.
# - The gradient is **p - q**: what was said, less what is right.
# - **Fused** they are exact where they would overflow apart, and each score is moved once.
#
# Next: [training that generalises](4_training_that_generalises.ipynb).
