"""A Hugging Face encoder: batches are dictionaries with an attention mask, and the model returns its own loss."""

import safetensors.torch
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_model() -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=32, num_labels=2))


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-3)


def sentences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Sequences of tokens; the label says whether token 7 comes up more often than token 9."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 12, (count, 24), generator=random)
    mask = (torch.arange(24) < torch.randint(8, 25, (count, 1), generator=random)).long()
    labels = (((tokens == 7) * mask).sum(1) > ((tokens == 9) * mask).sum(1)).long()
    names = ("input_ids", "attention_mask", "labels")
    return [dict(zip(names, row, strict=True)) for row in zip(tokens * mask, mask, labels, strict=True)]


def main(epochs: int = 8) -> float:
    torch.manual_seed(0)
    train = sentences(1024, seed=1)
    model = make_model()
    optimizer = make_optimizer(model)
    loader = DataLoader(train, batch_size=32, shuffle=True)
    for _ in range(epochs):
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    safetensors.torch.save_model(model, "encoder.safetensors")
    safetensors.torch.load_model(best := make_model().eval(), "encoder.safetensors")
    test = next(iter(DataLoader(sentences(512, seed=2), batch_size=512)))
    return (best(**test).logits.argmax(1) == test["labels"]).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
