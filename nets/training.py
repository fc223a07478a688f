"""The training loop of every network, teacher or student."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from cgankd.nets.batches import Augmentation, Batch, Batches, Teacher, TrainingData
from cgankd.nets.checkpoint import Checkpoint
from cgankd.nets.device import Precision, Progress, placed, precise
from cgankd.nets.losses import (
    Distillation,
    RegressionLoss,
    cross_entropy,
    distilled,
    regression_loss,
)
from cgankd.nets.network import Network
from cgankd.nets.networks import NetworkName, build_network, fill_network
from cgankd.shardset.errors import TrainingDiverged
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace

ROWS = 100  # rows of a history; at each the loss is looked at, which a GPU has to wait for
EVALUATIONS = 10  # of these rows, evenly spread, come with an evaluation
AVERAGE_EVERY = 8  # steps; averaging the weights at each costs as much as a small network's step


class StudentTraining(BaseModel):
    """How a network is trained; the same record for teachers and students."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: NetworkName = Field("convnet-80k", description="name of the network")
    steps: int = Field(1500, ge=1, description="optimiser steps")
    batch: int = Field(128, ge=2, description="images per step, real and generated together")
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(0.05, gt=0, description="learning rate at the start")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; of adam it is the first beta")
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "step"] = Field("cosine", description="cosine falls to zero")
    decay_at: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        (0.625, 0.75, 0.875), description="fractions of the steps at which `step` divides lr by ten"
    )
    ema_decay: float | None = Field(
        0.99, gt=0, lt=1, description="per step, of the averaged weights; null keeps the last"
    )
    augment: Augmentation = "none"
    generated_fraction: float | None = Field(
        0.5, ge=0, lt=1, description="of every batch; null mixes in proportion to the two sets"
    )
    distillation: Distillation | None = None
    regression_loss: RegressionLoss = Field(
        "mse", description="of continuous labels, scaled to 0 … 1"
    )


def train_network(
    data: TrainingData,
    config: StudentTraining,
    *,
    space: LabelSpace,
    init: Mapping[str, torch.Tensor] | None = None,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    eval: Callable[[Network], Mapping[str, float]] | None = None,
    progress: Progress = lambda done, total, facts: None,
    teacher: Teacher | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Network, list[dict[str, float]]]:
    """The trained network, averaged and in evaluation mode, and the history of its training.

    Labels are raw and `space` says what they are: classes are learnt by cross-entropy, continuous
    labels scaled to [0, 1] by `regression_loss`. `init` is the state to start from (fine-tuning),
    else `seed` decides the weights. Distillation takes the stored logits, and asks `teacher` where
    images are augmented or none are stored. `eval` takes the averaged network and returns metrics.
    A history row has `step`, `loss` (mean since the row before), `learning_rate`, `images_seen`
    and, ten times, the metrics. `TrainingDiverged` where the loss stops being a number. With a
    `checkpoint`, a training that was cut short goes on and ends as if it had not been.
    """
    channels, size = data.image_shape[:2]
    with torch.random.fork_rng(devices=[]):  # weights are made on the CPU
        torch.manual_seed(derive_seed(seed, "weights"))
        network = build_network(config.network, outputs=space.outputs, channels=channels, size=size)
    if init is not None:
        fill_network(network, init, where="the weights to start from")
    elif space.task == "regression":
        _start_in_the_middle(network)
    network = placed(network, device).train()
    average = copy.deepcopy(network).eval()
    optimiser = _optimiser(network, config)
    batches = Batches(
        data,
        space=space,
        batch=config.batch,
        generated_fraction=config.generated_fraction,
        augment=config.augment,
        distil=config.distillation is not None,
        teacher=teacher,
        seed=seed,
        device=device,
    )
    history: list[dict[str, float]] = []
    done = 0
    if checkpoint is not None:
        done, history = checkpoint.load(network, average, optimiser)
    losses: list[torch.Tensor] = []
    row_at = _evenly(config.steps, ROWS)
    evaluate_at = _evenly(config.steps, EVALUATIONS) if eval is not None else frozenset()
    for step, batch in enumerate(batches.of(config.steps, first=done), start=done + 1):
        rate = learning_rate(config, step - 1)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with precise(device, precision):
            outputs = network(batch.images)
        loss = _loss(config, space, outputs, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        if step % AVERAGE_EVERY == 0 or step == config.steps:
            _average(average, network, config.ema_decay, step)
        if step in row_at:
            row = {
                "step": step,
                "loss": _mean(losses, step, config),
                "learning_rate": rate,
                "images_seen": step * config.batch,
            }
            losses.clear()
            if eval is not None and step in evaluate_at:
                row |= eval(average)
            history.append(row)
            progress(step, config.steps, row)
            # Here no losses are waiting for their row, so that they need not be kept.
            if checkpoint is not None and step < config.steps:
                checkpoint.save_if_due(step, network, average, optimiser, history)
    return average, history


def _start_in_the_middle(network: Network) -> None:
    """Sets the last layer so that the network first answers ½, the middle of the range.

    From random answers, squared errors are so large at first that sound learning rates diverge.
    """
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 0.5)


def learning_rate(config: StudentTraining, step: int) -> float:
    """The learning rate of step 0 … steps − 1."""
    done = step / config.steps
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * 0.1 ** sum(done >= fraction for fraction in config.decay_at)


def _loss(
    config: StudentTraining, space: LabelSpace, outputs: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """The loss `[b]` of each sample that the settings and the labels ask for."""
    if space.task == "regression":
        return regression_loss(outputs, batch.targets, config.regression_loss)
    if config.distillation is None:
        return cross_entropy(outputs, batch.targets)
    return distilled(config.distillation, outputs, batch.targets, batch.teacher_logits)


def _optimiser(network: Network, config: StudentTraining) -> torch.optim.Optimizer:
    # Fused: one call a step for all weights; on small networks the others cost more than backward.
    if config.optimiser == "adam":
        return torch.optim.AdamW(
            network.parameters(),
            lr=config.lr,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


@torch.no_grad()
def _average(average: Network, network: Network, decay: float | None, step: int) -> None:
    """Moves the averaged weights and batch-norm statistics towards the network's."""
    towards = 1.0
    if decay is not None:
        # Short at first, or the random weights of step 0 would stay in the average.
        each = min(decay, (1 + step) / (10 + step))
        towards = 1 - each ** (step % AVERAGE_EVERY or AVERAGE_EVERY)
    own, others = average.state_dict(), network.state_dict()
    for name, tensor in own.items():
        if tensor.is_floating_point():
            tensor.lerp_(others[name], towards)
        else:
            tensor.copy_(others[name])


def _evenly(steps: int, count: int) -> frozenset[int]:
    """At most `count` of the steps 1 … steps, the last one included."""
    return frozenset(-(-steps * index // count) for index in range(1, count + 1))


def _mean(losses: list[torch.Tensor], step: int, config: StudentTraining) -> float:
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise TrainingDiverged(
            f"training {config.network}: the loss became {mean} between steps "
            f"{step - len(losses) + 1} and {step} of {config.steps}; set lr below {config.lr:g}"
        )
    return mean
