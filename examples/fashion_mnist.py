# SPDX-License-Identifier: MIT
"""A multilayer perceptron on Fashion-MNIST: train, test, save, load, look at what it says.

Where Fashion-MNIST is not installed (Debian: apt-get install dataset-fashion-mnist) the digits that
come with tilegrad take its place. Takes fifteen seconds, with the digits one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from common import INK, ORANGE, panels, parser, save


def images(name: str) -> tg.data.Dataset:
    """Load what was asked for; "auto" is Fashion-MNIST where it is installed."""
    if name == "digits":
        return tg.data.load_digits()
    try:
        return tg.data.load_fashion_mnist()
    except FileNotFoundError:
        if name == "fashion-mnist":
            raise
        print("Fashion-MNIST is not installed: taking the digits")
        return tg.data.load_digits()


def network(pixels: int) -> tg.nn.Sequential:
    """Build the network: two hidden layers, and a score for each of ten classes."""
    return tg.nn.Sequential(
        tg.nn.Linear(pixels, 256, activation="relu"),
        tg.nn.Dropout(0.1),
        tg.nn.Linear(256, 128, activation="relu"),
        tg.nn.Dropout(0.1),
        tg.nn.Linear(128, 10),
    )


def main(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Train the network, test it, save and load it; draw curves and predictions."""
    known = parser(__doc__)
    known.add_argument("--data", choices=("auto", "fashion-mnist", "digits"), default="auto")
    known.add_argument("--epochs", type=int, default=15)
    options = known.parse_args(argv)
    dataset = images(options.data)
    # Three parts: to learn from, to watch while learning, to judge once at the end.
    x, x_val, y, y_val = tg.data.train_test_split(*dataset.train(), test_size=0.1)
    x_test, y_test = dataset.test()
    print(f"{dataset.name}: {len(x)} to train on, {len(x_val)} to validate, {len(x_test)} to test")

    tg.manual_seed(0)
    model = network(x.shape[1]).to(options.device)
    optimizer = tg.optim.Adam(model.parameters(), lr=2e-3)
    # The learning rate sinks to zero along a cosine: large steps first, fine ones at the end.
    scheduler = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    history = tg.fit(
        model,
        tg.nn.CrossEntropyLoss(),
        optimizer,
        (x, y),
        validation=(x_val, y_val),
        epochs=options.epochs,
        batch_size=256,
        scheduler=scheduler,
    )

    scores = model.predict(x_test, batch_size=1000)
    predicted = scores.argmax(axis=1)
    accuracy = float(np.mean(predicted == y_test))
    print(f"test accuracy {100 * accuracy:.2f} %")

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "fashion_mnist.safetensors"
    tg.save(path, model)
    tg.manual_seed(1)  # other initial weights, to see that the file replaces them
    again = network(x.shape[1]).to(options.device)
    tg.load(path, again)
    same = bool((again.predict(x_test, batch_size=1000) == scores).all())
    print(f"model     {path}; loaded again it says {'the same' if same else 'SOMETHING ELSE'}")

    curves = tg.plot.plot_history(history, title=f"{dataset.name}: training")
    save(curves, options.out, "fashion_mnist_curves.png")
    title = f"{dataset.name}: the first 24 test images (orange: wrong)"
    figure, axes = panels(title, 8, 3, size=(10.5, 5))
    names = dataset.class_names
    for i, panel in enumerate(axes):
        says, is_class = names[predicted[i]], names[y_test[i]]
        wrong = says != is_class
        panel.imshow(dataset.test_images[i], cmap="Greys")
        panel.set_axis_off()
        words = f"{says}\nnot {is_class}" if wrong else says
        panel.set_title(words, fontsize=9, color=ORANGE if wrong else INK)
    save(figure, options.out, "fashion_mnist.png")
    return {"data": dataset.name, "accuracy": accuracy, "same": same, "history": history}


if __name__ == "__main__":
    main(sys.argv[1:])
