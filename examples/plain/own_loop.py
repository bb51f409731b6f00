"""A training script as people have it: own dataset with augmentation, label smoothing, parameter groups, OneCycle,
accumulated gradients, autocast, macro-F1, a checkpoint."""

import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    def __init__(self, part: str) -> None:
        data = load_digits()
        chosen = slice(0, 1437) if part == "train" else slice(1437, None)
        self.images = torch.tensor(data.images[chosen] / 16, dtype=torch.float32).unsqueeze(1)
        self.labels = torch.tensor(data.target[chosen])
        self.augment = part == "train"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        if self.augment:
            image = image.roll(tuple(torch.randint(-1, 2, (2,)).tolist()), (1, 2))
        return image, self.labels[index]


class Network(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten()]
        super().__init__(*layers, nn.Linear(32 * 16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    plain = [p for name, p in model.named_parameters() if name.endswith("bias")]
    decayed = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}])


def main(epochs: int = 6, accumulate: int = 2) -> float:
    torch.manual_seed(0)
    train = Digits("train")
    model = Network()
    optimizer = make_optimizer(model)
    loader = DataLoader(train, batch_size=16, shuffle=True, drop_last=True)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for number, (images, labels) in enumerate(loader, start=1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = criterion(model(images), labels) / accumulate
            loss.backward()
            if number % accumulate == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    safetensors.torch.save_model(model, "digits.safetensors")
    safetensors.torch.load_model(best := Network().eval(), "digits.safetensors")
    images, labels = next(iter(DataLoader(Digits("test"), batch_size=400)))
    return f1_score(labels, best(images).argmax(1), average="macro")


if __name__ == "__main__":
    print(f"macro-F1 {main():.3f}")
