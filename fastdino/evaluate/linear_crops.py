"""The original's linear classification: each epoch sees other crops of the training pictures, through the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from fastdino.data.reading import read_image
from fastdino.errors import UserError
from fastdino.evaluate.cuts import channels_first
from fastdino.evaluate.extractor import Extractor
from fastdino.evaluate.feature_cache import FeatureBatch
from fastdino.evaluate.features import compute_features, progress_bar
from fastdino.evaluate.linear_classifier import LinearClassifier
from fastdino.evaluate.linear_data import LinearData, TrainingPictures
from fastdino.evaluate.linear_grid import MOMENTUM


@dataclass(frozen=True)
class RandomCrop:
    """torchvision's random resized crop and flip of each picture, the same for equal seeds, epochs and indices."""

    seed: int
    epoch: int
    size: int

    def __call__(self, data: bytes, index: int) -> npt.NDArray[np.uint8]:
        image = read_image(data)
        number = int(np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1)[0])
        augment = transforms.Compose([transforms.RandomResizedCrop(self.size), transforms.RandomHorizontalFlip()])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return channels_first(augment(image))


def train_on_crops(
    extract: Extractor,
    data: LinearData,
    *,
    rate: float,
    epochs: int,
    val_freq: int,
    seed: int,
) -> tuple[LinearClassifier, dict[int, float]]:
    """Train on `data.pictures` by SGD with momentum 0.9, the learning rate `rate` * pictures a step / 256 by cosine.

    Every process computes a batch of each step. Returns the classifier, and by epoch, every `val_freq` of them and the
    last, the top-1 accuracy in percent on the test. Raises UserError when the loss is no number any more.
    """
    pictures, labels = data.pictures, data.train.labels
    device, step_batches = extract.device, extract.world.size
    generator = torch.Generator().manual_seed(seed)
    start = torch.empty(data.test.features.shape[1], data.train_classes).normal_(std=0.01, generator=generator)
    layer = nn.Linear(start.shape[0], start.shape[1], device=device)
    with torch.no_grad():
        layer.weight.copy_(start.T)
        layer.bias.zero_()
    scaled = rate * extract.batch_size * step_batches / 256
    optimizer = torch.optim.SGD(layer.parameters(), scaled, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    test = data.test.features.to(device), data.test.labels.to(device)
    label_of = dict(zip(pictures.indices.tolist(), labels.tolist(), strict=True))
    accuracies: dict[int, float] = {}
    with progress_bar(extract.console) as progress:
        task = progress.add_task("", total=epochs * len(labels))
        for epoch in range(epochs):
            progress.update(task, description=f"Epoch {epoch + 1} of {epochs}")
            for batch in _steps(extract, pictures, RandomCrop(seed, epoch, pictures.image_size), generator):
                targets = torch.tensor([label_of[index] for index in batch.indices], device=device)
                loss = F.cross_entropy(layer(batch.features.to(device)), targets)
                if not loss.isfinite():
                    raise UserError("the classifier diverged: give a lower --lr")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                progress.advance(task, len(targets))
            schedule.step()
            if epoch % val_freq == 0 or epoch == epochs - 1:
                accuracies[epoch] = _classifier(layer).accuracy(*test)["top1"]
    return _classifier(layer), accuracies


def _steps(
    extract: Extractor, pictures: TrainingPictures, crop: RandomCrop, generator: torch.Generator
) -> Iterator[FeatureBatch]:
    """One epoch in random order: the features of each step's crops, as many batches of them as there are processes."""
    order = pictures.indices[torch.randperm(len(pictures.indices), generator=generator)]
    batches = compute_features(
        pictures.model.eval(),
        pictures.source,
        [rows.tolist() for rows in order.split(extract.batch_size)],
        crop,
        num_workers=extract.num_workers,
        device=extract.device,
        world=extract.world,
    )
    while group := list(islice(batches, extract.world.size)):
        read = [batch for batch in group if batch.indices]
        if read:
            yield FeatureBatch(
                torch.cat([batch.features for batch in read]), [index for batch in read for index in batch.indices], {}
            )


def _classifier(layer: nn.Linear) -> LinearClassifier:
    return LinearClassifier(layer.weight.detach().clone(), layer.bias.detach().clone())
