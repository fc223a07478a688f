"""The training loop of every network, teacher or student."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cgankd.nets.batches import Augmentation, Batch, Batches, Teacher, TrainingData
from cgankd.nets.checkpoint import Checkpoint, Parts
from cgankd.nets.device import Precision, Progress, placed, precise
from cgankd.nets.losses import RegressionLoss, label_loss
from cgankd.nets.minimise import minimise, require_finite
from cgankd.nets.network import MovingAverage, Network
from cgankd.nets.networks import NetworkName, build_network, fill_network
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace

Need = Literal["logits"]  # what a method may ask of a training: the teacher's logits
Shapes = Mapping[Need, tuple[int, ...]]  # of what a method may ask, without the batch: (C,)
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
    regression_loss: RegressionLoss = Field(
        "mse", description="of continuous labels, scaled to 0 … 1"
    )


@dataclass(frozen=True)
class Step:
    """What a method sees of a step: the batch, with the teacher's logits where it needs them, the
    network with its outputs `[b, outputs]`, and the module that the method built. There is no
    one network in a pack (`nets.pack`).
    """

    batch: Batch
    outputs: Tensor
    network: Network | None
    module: nn.Module | None = None


class Method(Protocol):
    """A way of training that takes the place of the label loss, such as distillation."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the training has to supply."""

    def build(self, student: Shapes, teacher: Shapes) -> nn.Module | None:
        """What is trained along with the student and then left behind, such as a regressor from
        its features to the teacher's, for samples of these shapes; None where there is no such.
        """

    def loss(self, step: Step) -> Tensor:
        """The loss `[b]` of each sample of the step's batch."""


def train_network(
    data: TrainingData,
    config: StudentTraining,
    *,
    space: LabelSpace,
    init: Mapping[str, Tensor] | None = None,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    eval: Callable[[Network], Mapping[str, float]] | None = None,
    progress: Progress = lambda done, total, facts: None,
    method: Method | None = None,
    teacher: Teacher | None = None,
    checkpoint: Checkpoint | None = None,
    until: int | None = None,
) -> tuple[Network, list[dict[str, float]]]:
    """The trained network, averaged and in evaluation mode, and the history of its training.

    Labels are raw and `space` says what they are: classes are learnt by cross-entropy, continuous
    labels scaled to [0, 1] by `regression_loss`. `init` is the state to start from (fine-tuning),
    else `seed` decides the weights. A `method` takes the place of the label loss; one that needs
    logits gets the stored ones, and those of `teacher` where images are augmented or none are
    stored; the module that it builds is trained with the network. `eval` takes the averaged
    network and returns metrics.
    A history row has `step`, `loss` (mean since the row before), `learning_rate`, `images_seen`
    and, ten times, the metrics. `TrainingDiverged` where the loss stops being a number. With a
    `checkpoint`, a training that was cut short goes on and ends as if it had not been; so does
    one that stopped after step `until`, one of `evenly(steps, ROWS)`.
    """
    shapes: Shapes = {"logits": (space.outputs,)}
    with torch.random.fork_rng(devices=[]):  # weights are made on the CPU
        torch.manual_seed(derive_seed(seed, "weights"))
        network = first_network(config.network, data.image_shape, space, init)
        module = None if method is None else method.build(shapes, shapes)
    network = placed(network, device).train()
    average = MovingAverage(network)
    trained = [network] if module is None else [network, placed(module, device).train()]
    optimiser = _optimiser([weight for part in trained for weight in part.parameters()], config)
    batches = batches_of(data, config, space, method, teacher, seed=seed, device=device)
    parts: Parts = {"network": network, "average": average.module, "optimiser": optimiser}
    if module is not None:
        parts = {**parts, "method": module}
    history: list[dict[str, float]] = []
    done = 0
    if checkpoint is not None:
        done, history = checkpoint.load(parts)
    losses: list[Tensor] = []
    row_at = evenly(config.steps, ROWS)
    evaluate_at = evenly(config.steps, EVALUATIONS) if eval is not None else frozenset()
    coming = batches.of(config.steps, first=done)

    def loss(step: int) -> Tensor:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step - 1)
        batch = next(coming)
        with precise(device, precision):
            outputs = network(batch.images)
        if method is None:
            return label_loss(outputs, batch.targets, config.regression_loss).mean()
        return method.loss(Step(batch, outputs, network, module)).mean()

    def after(step: int, value: Tensor) -> None:
        losses.append(value)
        if step % AVERAGE_EVERY == 0 or step == config.steps:
            average.update(lag(config.ema_decay, step))
        if step not in row_at:
            return
        row = history_row(config, step, _mean(losses, step, config))
        losses.clear()
        if eval is not None and step in evaluate_at:
            row |= eval(average.module)
        history.append(row)
        progress(step, config.steps, row)
        # Here no losses are waiting for their row, so that they need not be kept.
        if checkpoint is not None and step < config.steps and (step == until or checkpoint.due):
            checkpoint.save(step, parts, history)

    minimise(loss, optimiser, until or config.steps, first=done, after=after)
    return average.module, history


def batches_of(
    data: TrainingData,
    config: StudentTraining,
    space: LabelSpace,
    method: Method | None,
    teacher: Teacher | None,
    *,
    seed: int,
    device: torch.device,
) -> Batches:
    """The batches of a training by these settings, with what its method needs."""
    return Batches(
        data,
        space=space,
        batch=config.batch,
        generated_fraction=config.generated_fraction,
        augment=config.augment,
        distil=method is not None and "logits" in method.needs,
        teacher=teacher,
        seed=seed,
        device=device,
    )


def history_row(config: StudentTraining, step: int, loss: float) -> dict[str, float]:
    """A row of a history after `step` steps, without the figures of an evaluation."""
    return {
        "step": step,
        "loss": loss,
        "learning_rate": learning_rate(config, step - 1),
        "images_seen": step * config.batch,
    }


def first_network(
    name: NetworkName, shape: tuple[int, ...], space: LabelSpace, init: Mapping[str, Tensor] | None
) -> Network:
    """The network that a training starts from, for images of `shape` [c, h, w]: `init`, else new
    with weights from PyTorch's global generator.
    """
    network = build_network(name, outputs=space.outputs, channels=shape[0], size=shape[1])
    if init is not None:
        fill_network(network, init, where="the weights to start from")
    elif space.task == "regression":
        _start_in_the_middle(network)
    return network


def _start_in_the_middle(network: Network) -> None:
    """Sets the last layer so that the network first answers ½, the middle of the range.

    From random answers, squared errors are so large at first that sound learning rates diverge.
    """
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 0.5)


def learning_rate(config: StudentTraining, step: int) -> float:
    """The learning rate of step 0 … steps − 1.

    >>> learning_rate(StudentTraining(steps=100, lr=0.1), step=50)
    0.05
    """
    done = step / config.steps
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * 0.1 ** sum(done >= fraction for fraction in config.decay_at)


def _optimiser(weights: Iterable[nn.Parameter], config: StudentTraining) -> torch.optim.Optimizer:
    # Fused: one call a step for all weights; on small networks the others cost more than backward.
    if config.optimiser == "adam":
        return torch.optim.AdamW(
            weights,
            lr=config.lr,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
    return torch.optim.SGD(
        weights,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


def lag(decay: float | None, step: int) -> float:
    """The decay of the average at this step, over the steps since it was last moved."""
    if decay is None:
        return 0.0
    # Short at first, or the random weights of step 0 would stay in the average.
    each = min(decay, (1 + step) / (10 + step))
    return each ** (step % AVERAGE_EVERY or AVERAGE_EVERY)


def evenly(steps: int, count: int) -> frozenset[int]:
    """At most `count` of the steps 1 … steps, the last one included."""
    return frozenset(-(-steps * index // count) for index in range(1, count + 1))


def _mean(losses: list[Tensor], step: int, config: StudentTraining) -> float:
    return require_finite(
        float(torch.stack(losses).mean()),
        f"training {config.network}: the loss between steps {step - len(losses) + 1} and {step} of "
        f"{config.steps}",
        f"set lr below {config.lr:g}",
    )
