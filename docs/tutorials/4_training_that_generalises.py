# SPDX-License-Identifier: MIT
# %% [markdown]
# # 4. Training that generalises
#
# Pupils who know last year's exam by heart get full marks in last year's exam. Networks are pupils
# of that kind: given the chance, they learn answers instead of the subject. What we want is a
# network that is right about images it has **never seen**: one that *generalises*.
#
# This page shows how to notice the difference, what to do about it, and how to report an honest
# score. The images are handwritten digits of 8 x 8 pixels, which tilegrad brings along.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tilegrad as tg

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6b6b6b"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 90})
np.set_printoptions(precision=3, suppress=True)

digits = tg.data.load_digits()
images, labels = digits.train()
images = images.reshape(-1, 8, 8)

# %% [markdown]
# ## Learning by heart
#
# First a joke with a serious end. Take 200 digits and give each a label drawn from a hat. Nothing
# can be learned from that: the label of an image says nothing about any other image.


# %%
def network(dropout=0.0):
    """Make a network that is large for its task: the more weights, the better the memory."""
    return tg.nn.Sequential(
        tg.nn.Flatten(),
        tg.nn.Linear(64, 256, activation="relu"),
        tg.nn.Dropout(dropout),  # with 0 it does nothing; more about it below
        tg.nn.Linear(256, 256, activation="relu"),
        tg.nn.Dropout(dropout),
        tg.nn.Linear(256, 10),
    )


def accuracy(model, x, y):
    return np.mean(model.predict(x).argmax(axis=1) == y)


rng = np.random.default_rng(0)
from_a_hat = rng.integers(0, 10, 200)
tg.manual_seed(0)
parrot = network()
optimizer = tg.optim.Adam(parrot.parameters(), lr=3e-3)
loss_fn = tg.nn.CrossEntropyLoss()
seen = (images[:200], from_a_hat)
tg.fit(parrot, loss_fn, optimizer, seen, epochs=100, batch_size=32, progress=False)
by_heart = accuracy(parrot, *seen)
elsewhere = accuracy(parrot, images[200:], labels[200:])
print(f"on the images it has seen {by_heart:.0%} right, on all others {elsewhere:.0%}")

# %% [markdown]
# It knows the nonsense by heart, and guesses everywhere else: one in ten is what chance gives. So
# **a good score on the training images proves nothing.** It has to be measured on others.
#
# ## Three parts
#
# Whatever data there is, it is cut into three parts before anything else happens:
#
# - **Training images** change the weights.
# - **Validation images** never do. They decide everything that *we* choose: how long, how large,
#   which remedy.
# - **Test images** are locked away, and used once, at the very end, for the number to be told.
#
# Why are two parts not enough? Because choosing is learning, too: whoever tries fifty things and
# keeps the best has learned something about the images that gave the score. The last section shows
# how much.
#
# To see the trouble clearly, we make life hard: only 300 images to train on, and some of their
# labels are wrong, as in every real collection. `stratify` keeps each digit's share the same in
# both parts.

# %%
split = tg.data.train_test_split
x_rest, x_val, y_rest, y_val = split(images, labels, test_size=400, stratify=labels)
_, x_train, _, true_labels = split(x_rest, y_rest, test_size=300, stratify=y_rest)
y_train = true_labels.copy()
tired = rng.random(len(y_train)) < 0.15  # whoever wrote these labels was tired
y_train[tired] = rng.integers(0, 10, np.count_nonzero(tired))
wrong = y_train != true_labels
print(f"training {len(x_train)}, of which {np.count_nonzero(wrong)} have a wrong label")
print(f"validation {len(x_val)}, test {len(digits.test()[0])} (put away)")

figure, axes = plt.subplots(2, 10, figsize=(9, 2.3), layout="constrained")
shown = np.concatenate([np.flatnonzero(~wrong)[:10], np.flatnonzero(wrong)[:10]])
for panel, i in zip(axes.flat, shown, strict=True):
    panel.imshow(x_train[i], cmap="Greys")
    panel.set_title(y_train[i], color=ORANGE if wrong[i] else BLUE, fontsize=11)
    panel.axis("off")
figure.suptitle("Training images and their labels: right ones above, wrong ones below", fontsize=10)
plt.show()

# %% [markdown]
# ## Over-fitting
#
# Now train, and measure both parts after every epoch (an **epoch** is one walk through all training
# images).

# %%
EPOCHS = 100


def train(dropout=0.0, decay=0.0, transform=None, lr=1e-3, cosine=False, callbacks=(), seed=0):
    """Train a new network; every remedy of this page is an option."""
    tg.manual_seed(seed)
    model = network(dropout)
    optimizer = tg.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    scheduler = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS) if cosine else None
    history = tg.fit(
        model, loss_fn, optimizer, (x_train, y_train), (x_val, y_val), epochs=EPOCHS,
        batch_size=32, callbacks=callbacks, scheduler=scheduler, transform=transform, seed=seed,
        progress=False,
    )  # fmt: skip
    return model, history


def measure(name, model):
    """Print how a network does on the validation images, and what it knows by heart."""
    loss = float(tg.cross_entropy(model.predict(x_val), y_val))
    right, known = accuracy(model, x_val, y_val), accuracy(model, x_train[wrong], y_train[wrong])
    print(
        f"{name:16} validation loss {loss:.3f}, {right:.1%} right, wrong labels known {known:.0%}"
    )
    return loss, right, known


plain, history = train()
best = int(np.argmin(history.val_loss))
for i in (best, EPOCHS - 1):
    train_loss, val_loss = history.train_loss[i], history.val_loss[i]
    print(f"epoch {i + 1:3}: training loss {train_loss:.3f}, validation loss {val_loss:.3f}")
of_plain = measure("at the end", plain)

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
epochs = np.arange(1, EPOCHS + 1)
lists = vars(history)
for panel, name in zip(axes, ("loss", "accuracy"), strict=True):
    panel.plot(epochs, lists[f"train_{name}"], color=BLUE, linewidth=2, label="training")
    panel.plot(epochs, lists[f"val_{name}"], color=ORANGE, linewidth=2, label="validation")
    panel.axvline(best + 1, color=GREY, linewidth=0.9, linestyle=":")
    panel.set(xlabel="epoch", ylabel=name, ylim=0 if name == "loss" else (0.5, 1.01))
axes[0].text(best + 3, 1.9, "lowest validation loss", color=GREY, fontsize=9)
axes[1].legend(frameon=False, fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# On the left of the dotted line both losses fall: what is learned about the training images holds
# for others, too. (The training loss is even the higher one: who has not learned them by heart is
# wrong about wrong labels.) On the right the training loss goes on falling and the validation loss
# *rises*: the network learns the training images by heart, wrong labels and all. That is
# **over-fitting**, and only a validation part can show it.
#
# ## Early stopping
#
# Simplest of all: stop at the dotted line. Nobody knows beforehand where it lies, so wait until the
# validation loss has not improved for some epochs (the *patience*), and take the weights of the
# best epoch back. In tilegrad that is a callback of `fit`.

# %%
stopping = tg.EarlyStopping(monitor="val_loss", patience=10)
stopped, stopped_history = train(callbacks=[stopping])
print(f"stopped after epoch {len(stopped_history.epochs)}, back to epoch {stopping.best_epoch}")
of_stopped = measure("early stopping", stopped)

# %% [markdown]
# Better, and in less than half of the epochs. The network had learned what a digit looks like
# *before* it had the time to learn the wrong labels.
#
# ## Weight decay
#
# To bend around a single wrong label, a network needs large weights. So pull them all towards zero:
# beside the step downhill, each weight loses the share *learning rate x decay* of itself. What the
# data does not keep insisting on fades away. The optimiser `AdamW` does that. How strong? Try:

# %%
print("decay   typical weight   training loss   validation loss")
by_decay = {}
for decay in (0.0, 0.3, 1.0, 3.0, 10.0):
    model, decayed = train(decay=decay)
    size = np.sqrt(np.mean(np.concatenate([p.data.ravel() for p in model.parameters()]) ** 2))
    by_decay[decay] = size, decayed.train_loss[-1], decayed.val_loss[-1]
    print("{:5.1f} {:16.4f} {:15.3f} {:17.3f}".format(decay, *by_decay[decay]))

# %% [markdown]
# The more decay, the smaller the weights, and the less is learned by heart. Too much is worse than
# none: then nothing is learned properly. The training loss alone would always say "none".
#
# ## Dropout
#
# Let each hidden neuron miss each training step with probability $p$. Then no neuron can rely on a
# certain other to be there, and a picture cannot be remembered by a single path. Those that stay
# are scaled up by $1 / (1 - p)$, so that the sum is the same on average. When the network is
# *used*, all of them are there. Ten ones, three times in training, then in use:

# %%
tg.manual_seed(0)
ones = np.ones(10, np.float32)
for _ in range(3):
    print("training", tg.dropout(ones, 0.5))
print("in use  ", tg.dropout(ones, 0.5, training=False))
many = tg.dropout(np.ones(1_000_000, np.float32), 0.5)
print(f"mean of a million {many.mean():.3f}")

figure, panel = plt.subplots(figsize=(7, 3.2), layout="constrained")
by_dropout = {}
amounts, colours = (0.0, 0.25, 0.5, 0.75, 0.9), (GREY, BLUE, ORANGE, GREEN, PINK)
for p, colour in zip(amounts, colours, strict=True):
    model, dropped = train(dropout=p)
    by_dropout[p], *_ = measure(f"dropout {p}", model)
    panel.plot(epochs, dropped.val_loss, color=colour, linewidth=1.8, label=f"p = {p}")
panel.set(title="Dropout", xlabel="epoch", ylabel="validation loss", ylim=(0.2, 1.4))
panel.legend(frameon=False, fontsize=9, ncols=3)
plt.show()

# %% [markdown]
# As with decay there is a best amount, and too much is worse than none.
#
# ## Augmentation
#
# A seven that stands one pixel further left is still a seven. We know that, the network does not.
# So let it see every image a little different in every epoch. Which changes are allowed is for us
# to know: a mirrored seven would not be one. And these digits touch the upper and the lower edge;
# there is room only at the sides.

# %%
augment = tg.data.RandomShift((0, 1))  # 0 pixels up or down, 1 to the side
figure, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for epoch, panel in enumerate(axes):
    changed = augment(x_train[2:3], seed=2, epoch=epoch)
    panel.imshow(changed[0], cmap="Greys")
    panel.set_title(f"epoch {epoch}", fontsize=9)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(True)
plt.show()
ink = x_train.mean(axis=0)
edges = {"upper": ink[0], "lower": ink[7], "left": ink[:, 0], "right": ink[:, 7]}
print("mean ink at the edges:", {name: f"{pixels.mean():.3f}" for name, pixels in edges.items()})
augmented, _ = train(transform=augment)
of_augmented = measure("augmentation", augmented)

# %% [markdown]
# Some wrong labels are still learned by heart: they move along with their images. Together with
# dropout it does more, as we will see. (`fit` changes the training images alone; validation images
# stay as they are, or else two measurements could not be compared.)
#
# ## A learning rate that falls
#
# Large steps get on fast, but at the end they jump about around the goal. Small steps arrive, but
# late. So begin large and become small: a **schedule**. A cosine stays large for a while and ends
# gently. With dropout and augmentation, at three times the rate:

# %%
FAST, rates, wobble = 3e-3, {}, {}
for name, cosine in (("constant", False), ("cosine", True)):
    _, rates[name] = train(dropout=0.5, transform=augment, lr=FAST, cosine=cosine)
    wobble[name] = np.abs(np.diff(rates[name].val_loss[-20:])).mean()
    print(f"{name:9} validation loss changes by {wobble[name]:.4f} from epoch to epoch, at the end")

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for (name, found), colour in zip(rates.items(), (ORANGE, BLUE), strict=True):
    axes[0].plot(epochs, found.learning_rate, color=colour, linewidth=2, label=name)
    axes[1].plot(epochs, found.val_loss, color=colour, linewidth=1.8)
axes[0].set(title="learning rate", xlabel="epoch", ylim=0)
axes[0].legend(frameon=False, fontsize=9, loc="lower left")
axes[1].set(title="validation loss", xlabel="epoch", ylim=(0.2, 1))
plt.show()

# %% [markdown]
# With a constant rate it is luck whether the last epoch is a good one. With the schedule the curve
# comes to rest.
#
# ## Side by side
#
# One training run is one throw of the dice. So each way three times, with three seeds:

# %%
stop = {"callbacks": [tg.EarlyStopping(patience=20)]}
mixture = {"dropout": 0.5, "transform": augment, "lr": FAST, **stop}
ways = {
    "nothing": {},
    "early stopping": stop,
    "weight decay": {"decay": 1.0},
    "dropout": {"dropout": 0.75},
    "augmentation": {"transform": augment},
    "several together": mixture,
    "far too much": {**mixture, "dropout": 0.75, "decay": 1.0},
}
models, losses, known = {}, {}, {}
for name, way in ways.items():
    models[name] = [train(seed=seed, **way)[0] for seed in range(3)]
    found = np.array([measure(name, model) for model in models[name]])
    losses[name], known[name] = found[:, 0], found[:, 2].mean()

figure, panel = plt.subplots(figsize=(7.5, 2.9), layout="constrained")
for place, values in enumerate(reversed(losses.values())):
    panel.plot(values, [place] * len(values), "o", color=BLUE, markersize=6, alpha=0.7)
    panel.plot(values.mean(), place, "|", color=ORANGE, markersize=18, markeredgewidth=2.5)
panel.set_yticks(range(len(losses)), list(losses)[::-1])
panel.set(title="Three seeds (circles) and their mean", xlabel="validation loss", xlim=0)
panel.grid(axis="x", color="0.9")
plt.show()

# %% [markdown]
# Every remedy keeps part of the wrong labels from being learned by heart, and several together do
# best. But the amounts had to be tried: with the full dose of everything it learns too little.
#
# ## Is that luck? Five folds
#
# The validation images may be lucky, too, and often there are none to spare. **K-fold
# cross-validation** uses the training images for both: cut them into five folds, train five times,
# and hold another fold back each time to measure on. The five scores show how much is luck. (The
# labels held back are as wrong as the others, so no score can be perfect.)

# %%
results = {}
for name, dropout, transform in (("nothing", 0.0, None), ("dropout, augmentation", 0.5, augment)):
    results[name] = tg.cross_validate(
        lambda dropout=dropout: network(dropout), x_train, y_train, k=5, stratify=y_train,
        loss_fn=loss_fn, make_optimizer=lambda model: tg.optim.Adam(model.parameters(), lr=1e-3),
        epochs=EPOCHS, batch_size=32, transform=transform, progress=False,
    )  # fmt: skip
    print(f"{name}\n{results[name]}\n")
gain = np.subtract(*[found.mean["val_accuracy"] for found in reversed(results.values())])
print(f"labels that are right: {np.mean(~wrong):.1%}; mean accuracy gained: {gain:.4f}")

# %% [markdown]
# The five folds of one way differ, though nothing but the choice of images has changed. A
# difference between two ways that is smaller than this spread means little. Here the accuracy
# gained is larger than the spread, and the loss is lower in every single fold.
#
# ## The test, once
#
# Now everything has been chosen, by the validation images, and only now the test images come out.
# Of the way with the lowest mean loss we take the first network, not the luckiest:

# %%
chosen = min(losses, key=lambda name: losses[name].mean())
final = models[chosen][0]
x_test, y_test = digits.test()
x_test = x_test.reshape(-1, 8, 8)
score = accuracy(final, x_test, y_test)
error = np.sqrt(score * (1 - score) / len(y_test))
print(f"chosen: {chosen}")
print(f"test accuracy {score:.1%}, give or take {error:.1%} (n = {len(y_test)})")

# %% [markdown]
# The figure behind "give or take" is the **standard error**: with other test images of the same
# number, about two of three scores would lie that close. The **confusion matrix** says where the
# errors are:

# %%
confusion = tg.confusion_matrix(y_test, final.predict(x_test))
figure, panel = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
panel.imshow(np.sqrt(confusion), cmap="Blues")
for (row, column), count in np.ndenumerate(confusion):
    colour = "white" if row == column else "black"
    panel.text(column, row, count or "", ha="center", va="center", color=colour, fontsize=9)
panel.set(xticks=range(10), yticks=range(10))
panel.set(title=f"{len(y_test)} test images", xlabel="taken for", ylabel="digit")
plt.show()

# %% [markdown]
# ## Why only once?
#
# Because the best of many is lucky. Here are 1000 "networks" that have learned nothing and guess:


# %%
scores = np.mean(rng.integers(0, 10, size=(1000, len(y_test))) == y_test, axis=1)
again = np.mean(rng.integers(0, 10, len(y_val)) == y_val)  # the winner guesses other images
print(f"mean of all {scores.mean():.1%}, the best {scores.max():.1%}, on other images {again:.1%}")

# %% [markdown]
# Chosen by its score, the winner seems to know something; on other images it guesses like all
# others. Every look at the test images, followed by a choice, does the same to your score in small.
#
# ## What to remember
#
# - A score on the training images proves nothing: a network can learn nonsense by heart.
# - **Training** images change weights, **validation** images decide what you choose, **test**
#   images are for one number at the end.
# - **Over-fitting** is when the validation loss turns and the training loss goes on falling.
# - **Early stopping**, **weight decay**, **dropout** and **augmentation** help against it, alone or
#   together; how much of each is for the validation images to say.
# - A **schedule** lets training come to rest.
# - Repeat, with other seeds or by **k-fold**, before believing that a difference is one.
# - Report the test score with its standard error, and do not go back.
#
# Next: [from a formula to a CUDA kernel](5_formula_to_kernel.ipynb).
