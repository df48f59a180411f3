"""Strong recipes in PyTorch: cifar10_airbench93, cifar10_airbench94, fashion_mnist_resnet; rivals of the pipeline.

Same network, hyperparameters, augmentation and batches as the entries of params.yaml, which name the authors. Channels
are last in memory, the forward pass runs under autocast, and batches are gathered from memory with one index operation.
With a GPU, everything is in its memory, and cuDNN tries its algorithms, as the authors of airbench let it.

`make bench-torch` installs PyTorch into a folder of its own; only processes that train with it import it.
"""

import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.common import Done
from benchmarks.pytorch import FOLDER

Arrays = tuple[np.ndarray, np.ndarray]

CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NORMALIZATION = {  # mean and standard deviation of each channel, of pixels from 0 to 1
    "cifar10_airbench93": CIFAR10,
    "cifar10_airbench94": CIFAR10,
    "fashion_mnist_resnet": ((0.28,), (0.35,)),
}


def train(
    done: Done, name: str, train: Arrays, evaluation: Arrays, epochs: int, batch_size: int, compiled: bool
) -> None:
    """Train for `epochs`, and classify the evaluation images after each of them.

    Args:
        done: called after each epoch with {"images": trained, "predicted": classes of the evaluation images}. After the
            last epoch they come with the recipe's test-time augmentation.
        name: a key of `NORMALIZATION`.
        train: images (n, height, width, channels) uint8 and labels (n,).
        evaluation: likewise.
        epochs: number of epochs, which the schedules stretch over.
        batch_size: what is left over at the end of an epoch is dropped.
        compiled: whether to use torch.compile.
    """
    sys.path.append(str(FOLDER))
    import torch

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)  # this process does nothing else
    torch.backends.cudnn.benchmark = True
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in NORMALIZATION[name])
    pixels = (torch.from_numpy(x).to(device).permute(0, 3, 1, 2) for x, _ in (train, evaluation))
    images, others = ((x / 255 - mean) / std for x in pixels)
    labels = torch.from_numpy(train[1]).to(device).long()
    steps = len(images) // batch_size * epochs
    make = {
        "cifar10_airbench93": _airbench93,
        "cifar10_airbench94": _airbench94,
        "fashion_mnist_resnet": _fashion_resnet,
    }[name]
    model, augment, optimizers, smoothing = make(torch, images, steps)
    model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    autocast = torch.autocast(device, torch.bfloat16)
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    step = 0
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images))
        for number in range(len(images) // batch_size):
            chosen = order[number * batch_size : (number + 1) * batch_size]
            batch = augment(images[chosen], chosen, epoch).contiguous(memory_format=torch.channels_last)
            with autocast:
                loss = loss_fn(forward(batch).float(), labels[chosen])
            loss.backward()
            for optimizer, set_rates in optimizers:
                set_rates(optimizer, step)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
        views = TEST_TIME[name] if epoch + 1 == epochs else _one_view
        model.eval()
        with torch.no_grad(), autocast:
            outputs = [
                sum(weight * model(view).float() for weight, view in views(torch, batch)) for batch in others.split(256)
            ]
        done({"images": len(images), "predicted": torch.cat(outputs).argmax(1).cpu().numpy()})


def _one_view(torch: Any, images: Any) -> Iterator[tuple[float, Any]]:
    yield 1.0, images


def _mirror(torch: Any, images: Any) -> Iterator[tuple[float, Any]]:
    yield 0.5, images
    yield 0.5, images.flip(-1)


def _mirror_shift(torch: Any, images: Any) -> Iterator[tuple[float, Any]]:
    """Half of the weight is the image's, half that of two shifts by a pixel; each with its mirror image."""
    padded = torch.nn.functional.pad(images, (1,) * 4, mode="reflect")
    for weight, view in ((0.5, images), (0.25, padded[:, :, :-2, :-2]), (0.25, padded[:, :, 2:, 2:])):
        for half, image in _mirror(torch, view):
            yield weight * half, image


TEST_TIME = {
    "cifar10_airbench93": _mirror_shift,
    "cifar10_airbench94": _mirror_shift,
    "fashion_mnist_resnet": _mirror,
}


def _random_crop(torch: Any, images: Any, pad: int, mode: str) -> Any:
    """Pad each image, and cut its former size out at a place of its own."""
    size = images.shape[-1]
    padded = torch.nn.functional.pad(images, (pad,) * 4, mode=mode)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # (n, channels, rows, columns, size, size), a view
    rows, columns = torch.randint(0, 2 * pad + 1, (2, len(images)))
    return windows[torch.arange(len(images)), :, rows, columns]


def _linear(start: int, stop: int) -> Any:
    """A factor that falls from 1 to 0 between two steps."""
    return lambda step: max(0.0, 1 - (step - start) / (stop - start))


def _set_linear(steps: int) -> Any:
    """Let every group's rate fall linearly to zero at its own last step."""

    def set_rates(optimizer: Any, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _linear(0, group.get("until", steps))(step)

    return set_rates


def _airbench93(torch: Any, images: Any, steps: int) -> tuple[Any, Any, list[Any], float]:
    """Network, augmentation, optimizers and label smoothing of KellerJordan/cifar10-airbench, lib_airbench93.py."""
    whitening, groups, head, model = _airbench(torch, images, (64, 128, 128), 1 / 9)
    torch.nn.init.zeros_(whitening.bias)
    convolutions, betas = _weights_and_betas(torch, groups)
    sgd = torch.optim.SGD(
        [
            {"params": [whitening.bias], "peak": 1.5, "until": steps // 4, "weight_decay": 1.3304e-3},
            {"params": betas, "peak": 96, "weight_decay": 2.079e-5},
            {"params": [*convolutions, head.weight], "peak": 1.5, "weight_decay": 1.3304e-3},
        ],
        lr=1.0,
        momentum=0.85,
        nesterov=True,
    )

    def set_rates(optimizer: Any, step: int) -> None:
        factor = float(np.interp(step, [0, 0.23 * steps, steps], [0.2, 1, 0.07]))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor * (step < group.get("until", steps))

    class Lookahead:
        """A slow copy of all that is trained and of the moving averages; takes its turn after the optimizer."""

        def __init__(self) -> None:
            averages = (layer for layer in groups if isinstance(layer, torch.nn.BatchNorm2d))
            statistics = [value for layer in averages for value in (layer.running_mean, layer.running_var)]
            self.fast = [*(value for value in model.parameters() if value.requires_grad), *statistics]
            self.slow = [value.detach().clone() for value in self.fast]
            self.steps = 0

        def step(self) -> None:
            self.steps += 1
            decay = 0.95**5 * (self.steps / steps) ** 3
            with torch.no_grad():
                for slow, fast in zip(self.slow, self.fast, strict=True):
                    if self.steps % 5 == 0:
                        slow.lerp_(fast, 1 - decay)
                    if self.steps % 5 == 0 or self.steps == steps:
                        fast.copy_(slow)

        def zero_grad(self, set_to_none: bool) -> None:
            pass

    optimizers = [(sgd, set_rates), (Lookahead(), lambda optimizer, step: None)]
    return model, _crop_and_flip_alternately(torch, len(images)), optimizers, 0.2


def _airbench94(torch: Any, images: Any, steps: int) -> tuple[Any, Any, list[Any], float]:
    """The same of airbench94_muon.py."""
    whitening, groups, head, model = _airbench(torch, images, (64, 256, 256), 1 / 256)
    with torch.no_grad():
        head.weight.div_(head.weight.std())
    convolutions, betas = _weights_and_betas(torch, groups)
    sgd = torch.optim.SGD(
        [
            {"params": [whitening.bias], "peak": 106, "until": max(1, steps * 3 // 9), "weight_decay": 3.774e-5},
            {"params": betas, "peak": 106, "weight_decay": 3.774e-5},
            {"params": [head.weight], "peak": 1340, "weight_decay": 2.985e-6},
        ],
        lr=1.0,
        momentum=0.85,
        nesterov=True,
    )
    optimizers = [(sgd, _set_linear(steps)), (_muon(torch, convolutions), _set_linear(steps))]
    return model, _crop_and_flip_alternately(torch, len(images)), optimizers, 0.2


def _airbench(torch: Any, images: Any, widths: tuple[int, ...], scale: float) -> tuple[Any, list[Any], Any, Any]:
    """The whitening layer, the layers of the three groups, the last layer, and the network of all of them."""
    nn = torch.nn

    def convolution(inputs: int, outputs: int) -> Any:
        layer = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
        nn.init.dirac_(layer.weight[:inputs])
        return layer

    def norm(width: int) -> Any:
        layer = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
        layer.weight.requires_grad = False
        return layer

    def group(inputs: int, width: int) -> list[Any]:
        first = [convolution(inputs, width), nn.MaxPool2d(2), norm(width), nn.GELU()]
        return [*first, convolution(width, width), norm(width), nn.GELU()]

    class Scale(nn.Module):  # type: ignore[name-defined]
        def forward(self, x: Any) -> Any:
            return scale * x

    whitening = nn.Conv2d(3, 24, 2)
    with torch.no_grad():
        patches = nn.functional.unfold(images[:5000], 2).transpose(1, 2).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors.T / (values + 5e-4).sqrt()[:, None]).reshape(12, 3, 2, 2).float()
        whitening.weight.copy_(torch.cat([filters, -filters]))
    whitening.weight.requires_grad = False
    head = nn.Linear(widths[-1], 10, bias=False)
    groups = [layer for inputs, width in pairwise((24, *widths)) for layer in group(inputs, width)]
    model = nn.Sequential(whitening, nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten(), head, Scale())
    return whitening, groups, head, model


def _weights_and_betas(torch: Any, layers: list[Any]) -> tuple[list[Any], list[Any]]:
    """The kernels of the convolutions, and the offsets of batch normalization."""
    convolutions = [layer.weight for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    return convolutions, [layer.bias for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)]


def _crop_and_flip_alternately(torch: Any, count: int) -> Any:
    """A random crop, and a mirror image in every other epoch, whose first one is random for each of `count` images."""
    flip_first = torch.rand(count) < 0.5

    def augment(batch: Any, indices: Any, epoch: int) -> Any:
        batch = _random_crop(torch, batch, 2, "reflect")
        flipped = flip_first[indices] ^ bool(epoch % 2)
        return torch.where(flipped.view(-1, 1, 1, 1), batch.flip(-1), batch)

    return augment


def _muon(torch: Any, weights: list[Any]) -> Any:
    """Muon for convolution kernels: momentum, and an update that Newton–Schulz steps make nearly orthogonal."""

    class Muon(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for weight in group["params"]:
                    momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                    momentum.mul_(0.6).add_(weight.grad)
                    update = orthogonalize((weight.grad + 0.6 * momentum).flatten(1)).view_as(weight)
                    with torch.no_grad():
                        weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_(group["lr"] * update)

    def orthogonalize(matrix: Any) -> Any:
        x = matrix / (matrix.norm() + 1e-7)
        x = x.T if len(matrix) > matrix.shape[1] else x
        for _ in range(3):
            product = x @ x.T
            x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
        return x.T if len(matrix) > matrix.shape[1] else x

    return Muon([{"params": weights, "peak": 0.24, "lr": 0.24}], {})


def _fashion_resnet(torch: Any, images: Any, steps: int) -> tuple[Any, Any, list[Any], float]:
    """The same of the ResNet in fastai's course22p2, notebooks 13 and 14."""
    nn = torch.nn

    class Activation(nn.Module):  # type: ignore[name-defined]
        def forward(self, x: Any) -> Any:
            return nn.functional.leaky_relu(x, 0.1) - 0.4

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, inputs: int, outputs: int, stride: int, size: int) -> None:
            super().__init__()
            self.path = nn.Sequential(
                nn.Conv2d(inputs, outputs, size, padding=size // 2),
                nn.BatchNorm2d(outputs),
                Activation(),
                nn.Conv2d(outputs, outputs, size, stride, padding=size // 2),
                nn.BatchNorm2d(outputs),
            )
            pool = [nn.AvgPool2d(2, ceil_mode=True)] if stride > 1 else []
            self.shortcut = nn.Sequential(*pool, nn.Conv2d(inputs, outputs, 1))
            self.activation = Activation()

        def forward(self, x: Any) -> Any:
            return self.activation(self.path(x) + self.shortcut(x))

    widths = (16, 32, 64, 128, 256, 512)
    blocks = [Block(1, 16, 1, 5)] + [Block(a, b, 2, 3) for a, b in pairwise(widths)]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(512, 10, bias=False), nn.BatchNorm1d(10))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, 0.1)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, eps=1e-8)

    def set_rates(optimizer: Any, step: int) -> None:
        peak_at = 0.3 * steps
        rising = step < peak_at
        part = step / peak_at if rising else (step - peak_at) / (steps - peak_at)
        mix = (1 - math.cos(math.pi * part)) / 2
        rates, momenta = ((1e-2 / 25, 1e-2), (0.95, 0.85)) if rising else ((1e-2, 1e-2 / 250_000), (0.85, 0.95))
        for group in optimizer.param_groups:
            group["lr"] = rates[0] + mix * (rates[1] - rates[0])
            group["betas"] = (momenta[0] + mix * (momenta[1] - momenta[0]), 0.999)

    def augment(batch: Any, indices: Any, epoch: int) -> Any:
        batch = _random_crop(torch, batch, 1, "constant")
        return torch.where((torch.rand(len(batch)) < 0.5).view(-1, 1, 1, 1), batch.flip(-1), batch)

    return model, augment, [(adamw, set_rates)], 0.0
