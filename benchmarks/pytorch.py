"""Two of the models in PyTorch's eager mode, as a PyTorch user would write them.

The pipeline's environment does not contain PyTorch. `make bench-torch` installs it into a separate folder, and only the
process that trains with it adds this folder to its path.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Done

FOLDER = Path(__file__).parent / ".torch"
MISSING = "it is not installed; `make bench-torch` installs it into a separate folder"
MODELS = ("fashion_mnist_lenet", "cifar10_dropout_cnn")


def available() -> bool:
    """Whether PyTorch has been installed for the benchmark."""
    return (FOLDER / "torch").is_dir()


def eager(
    done: Done, name: str, images: int, shape: tuple[int, ...], classes: int, batch_size: int, learning_rate: float
) -> None:
    """Train and validate for any number of epochs on float32 images in memory, with Adam.

    A batch is gathered with one index operation: a DataLoader, which fetches single images, is slower. The pixels are
    random, which does not change the time.

    Args:
        done: called after each epoch, with {"images": their number}.
        name: the model.
        images: number of training images; a ninth as many are used for validation.
        shape: height, width and channels.
        classes: number of classes.
        batch_size: the model's, as in params.yaml.
        learning_rate: the model's, as in params.yaml.
    """
    sys.path.append(str(FOLDER))
    import torch
    from torch import nn

    height, width, channels = shape
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.random((images, channels, height, width), np.float32))
    labels = torch.from_numpy(rng.integers(0, classes, images))
    model = {"fashion_mnist_lenet": _lenet, "cifar10_dropout_cnn": _dropout_cnn}[name](nn, channels, classes)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    loss_fn = nn.CrossEntropyLoss()
    while True:
        model.train()
        correct = 0
        for batch in torch.randperm(images).split(batch_size):
            outputs, targets = model(inputs[batch]), labels[batch]
            loss = loss_fn(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += int((outputs.argmax(1) == targets).sum())
        model.eval()
        with torch.no_grad():
            for batch in torch.arange(images // 9).split(256):
                correct += int((model(inputs[batch]).argmax(1) == labels[batch]).sum())
        done({"images": images})


def _lenet(nn: Any, channels: int, classes: int) -> Any:
    """The architecture of stages/models/lenet.py for images of 28 × 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding="same"),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5, padding="same"),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 16, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def _dropout_cnn(nn: Any, channels: int, classes: int) -> Any:
    """The architecture of stages/models/dropout_cnn.py for images of 32 × 32 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 50, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(50, 75, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Conv2d(75, 125, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(8 * 8 * 125, 500),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(500, 250),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(250, classes),
    )
