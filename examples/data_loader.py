"""A torch DataLoader whose workers share one hosted array: python examples/data_loader.py"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from arrayhost import ArrayManager


class HostedDataset(Dataset):
    """Rows of hosted arrays. What a worker is sent, under any start method, are two handles."""

    def __init__(self, features, labels):
        self.features, self.labels = features, labels

    def __len__(self):
        return len(self.features)

    def __getitems__(self, indices):
        # One read for a whole batch; rows chosen by a list are a copy, so that nobody's later write changes the batch.
        return torch.from_numpy(self.features[indices]), torch.from_numpy(self.labels[indices])


def as_it_is(batch):
    return batch  # __getitems__ makes whole batches


def main():
    rng = np.random.default_rng(0)
    weights = np.array([2.0, -3.0, 0.5])
    with ArrayManager() as manager:
        features = manager.array(rng.normal(size=(6_000, 3)))
        labels = manager.array(features @ weights)
        loader = DataLoader(
            HostedDataset(features, labels),
            batch_size=100,
            shuffle=True,
            num_workers=2,
            collate_fn=as_it_is,
            generator=torch.Generator().manual_seed(0),
        )
        model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        seen = 0
        for x, y in loader:
            optimiser.zero_grad()
            ((model(x).squeeze(1) - y) ** 2).mean().backward()
            optimiser.step()
            seen += len(x)
        print("rows seen:", seen)
        print("weights:", [round(w, 2) for w in model.weight[0].tolist()])


if __name__ == "__main__":
    main()
