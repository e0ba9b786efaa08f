"""Eager PyTorch as a peer: channels_last, fused Adam, data in tensors, on a GPU if one is visible.

Batches index the tensors with a permutation, because a DataLoader would collate 48,000 single examples per
epoch, which is far slower. Losses stay tensors until the epoch ends. OMP_NUM_THREADS sets the number of
threads; for small batches one is faster than two, so the benchmark tries both.
"""

import torch
from protocol import EVALUATION_BATCH, Arrays, EpochResult, Peer, Settings, serve, unit_floats
from torch import nn
from torch.nn import functional as F

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The benchmark hides GPUs from its peers; `accelerator.py` does not."""


class ChannelsLastFlatten(nn.Module):
    """Flatten NCHW in channels_last memory to [B, H*W*C] without a copy, in Keras's feature order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Flatten the features of each example."""
        return x.permute(0, 2, 3, 1).flatten(1)


class Residual(nn.Module):
    """Relu of x plus what a network makes of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape."""
        return F.relu(x + self.layers(x))


def normalised(channels: int) -> list[nn.Module]:
    """Build a convolution to 16 channels and its BatchNorm."""
    return [nn.Conv2d(channels, 16, 3, padding="same", bias=False), nn.BatchNorm2d(16)]


def make_model(name: str, rate: float) -> nn.Sequential:
    """Build a network with Keras's initialisation; no dropout layer at rate 0."""
    dropout = [nn.Dropout(rate)] if rate else []
    if name == "keras-cnn":
        model = nn.Sequential(
            nn.Conv2d(1, 10, 3, padding="same"), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            ChannelsLastFlatten(), *dropout,
            nn.Linear(14 * 14 * 10, 100), nn.ReLU(inplace=True),
            nn.Linear(100, 10),
        )  # fmt: skip
    elif name == "lenet-swish":
        model = nn.Sequential(
            nn.Conv2d(1, 3, 5), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(3, 6, 5), nn.SiLU(), nn.MaxPool2d(2),
            ChannelsLastFlatten(), *dropout,
            nn.Linear(4 * 4 * 6, 84), nn.SiLU(),
            nn.Linear(84, 10),
        )  # fmt: skip
    elif name == "mlp":
        model = nn.Sequential(
            ChannelsLastFlatten(), nn.Linear(784, 256), nn.ReLU(inplace=True),
            nn.Linear(256, 256), nn.ReLU(inplace=True), *dropout,
            nn.Linear(256, 10),
        )  # fmt: skip
    else:
        model = nn.Sequential(
            *normalised(1), nn.ReLU(inplace=True),
            *(Residual(*normalised(16), nn.ReLU(inplace=True), *normalised(16)) for _ in range(2)),
            nn.AdaptiveAvgPool2d(1), ChannelsLastFlatten(), *dropout,
            nn.Linear(16, 10),
        )  # fmt: skip
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model.to(DEVICE, memory_format=torch.channels_last)


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """Build the tutorial's optimizer; only Adam has a fused form on the CPU."""
    if name != "lenet-swish":
        return torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    # Keras adds 1e-7 under the square root, PyTorch adds epsilon after it.
    return torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=1e-7**0.5)


def build(settings: Settings, arrays: Arrays) -> Peer:
    """Build the network and its data as tensors on the CPU."""
    torch.manual_seed(settings.seed)
    model = make_model(settings.model, settings.rate)
    optimizer = make_optimizer(settings.model, model)
    images, labels = tensors(arrays.train_images, arrays.train_labels)
    val_images, val_labels = tensors(arrays.val_images, arrays.val_labels)

    def train_epoch() -> EpochResult:
        model.train()
        loss_sum = torch.zeros((), device=DEVICE)
        correct = torch.zeros((), dtype=torch.int64, device=DEVICE)
        for indices in torch.randperm(len(labels), device=DEVICE).split(settings.batch_size):
            batch, targets = images[indices], labels[indices]
            optimizer.zero_grad(set_to_none=True)
            logits = model(batch)
            loss = F.cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(indices)
            correct += (logits.detach().argmax(1) == targets).sum()
        accuracy = evaluate() if settings.validate else None
        return EpochResult(loss_sum.item() / len(labels), correct.item() / len(labels), accuracy)

    @torch.inference_mode()
    def evaluate() -> float:
        model.eval()
        batches = zip(val_images.split(EVALUATION_BATCH), val_labels.split(EVALUATION_BATCH), strict=True)
        correct = sum((model(batch).argmax(1) == targets).sum() for batch, targets in batches)
        return int(correct) / len(val_labels)

    return Peer(
        version={"torch": torch.__version__, "threads": str(torch.get_num_threads())},
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        train_epoch=train_epoch,
        evaluate=evaluate,
    )


def tensors(images, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert to images float32[N,1,28,28] in channels_last memory and labels int64[N]."""
    channels_first = torch.from_numpy(unit_floats(images)).permute(0, 3, 1, 2)
    return (
        channels_first.to(DEVICE).contiguous(memory_format=torch.channels_last),
        torch.from_numpy(labels).to(DEVICE).long(),
    )


if __name__ == "__main__":
    serve(build)
