"""A loop of Lightning Fabric."""

import safetensors.torch
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import SingleDeviceStrategy
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import isthmus


def make_model() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def main(epochs: int = 10) -> float:
    fabric = Fabric(strategy=SingleDeviceStrategy("cpu"), precision="bf16-mixed")
    fabric.seed_everything(0, verbose=False)
    data = load_breast_cancer()
    order = torch.randperm(len(data.target))
    features, labels = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    train = TensorDataset(features[:450], labels[:450])
    training = isthmus.Training(make_model, (features[:2],), make_optimizer, local_steps=7)
    model, optimizer = training.module, training.optimizer
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(DataLoader(training.share(train), batch_size=16, shuffle=True, drop_last=True))
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            fabric.backward(nn.functional.cross_entropy(model(inputs), targets))
            fabric.clip_gradients(model, optimizer, max_norm=1.0)
            optimizer.step()
    training.export("cancer.safetensors")
    safetensors.torch.load_model(best := make_model().eval(), "cancer.safetensors")
    return (best(features[450:]).argmax(1) == labels[450:]).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
