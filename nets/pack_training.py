"""The training of a pack: one run of the loop for several small networks."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgankd.nets.batches import Batch, Teacher, TrainingData
from cgankd.nets.checkpoint import Checkpoint, Parts
from cgankd.nets.device import Precision, placed, precise
from cgankd.nets.losses import label_loss
from cgankd.nets.minimise import minimise
from cgankd.nets.network import MovingAverage, Network
from cgankd.nets.pack import MEMBERS, PACKED, Pack, PackOptimiser
from cgankd.nets.training import (
    AVERAGE_EVERY,
    EVALUATIONS,
    ROWS,
    Method,
    Shapes,
    Step,
    StudentTraining,
    batches_of,
    evenly,
    first_network,
    history_row,
    lag,
    learning_rate,
)
from cgankd.shardset.errors import BadInput, TrainingDiverged
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace

History = list[dict[str, float]]


@dataclass(frozen=True)
class Member:
    """What is a member's own; its `config` differs from the others' in the learning rate alone."""

    data: TrainingData
    config: StudentTraining
    seed: int
    init: Mapping[str, Tensor] | None = None
    checkpoint: Checkpoint | None = None


def trains_in_packs(config: StudentTraining, method: Method | None, size: int) -> bool:
    """Whether packs make a training on images of `size` px faster, and can do it: of a small
    network, by its outputs alone. A method that builds a module, or asks for more than logits,
    trains alone.
    """
    if size > PACKED.get(config.network, 0):
        return False
    if method is None:
        return True
    anything: Shapes = {"logits": (2,)}
    return method.needs <= {"logits"} and method.build(anything, anything) is None


def train_pack(
    members: Sequence[Member],
    *,
    space: LabelSpace,
    device: torch.device,
    precision: Precision = "float32",
    eval: Callable[[Network], Mapping[str, float]] | None = None,
    method: Method | None = None,
    teacher: Teacher | None = None,
    until: int | None = None,
) -> list[tuple[Network, History] | TrainingDiverged]:
    """For each member what `train_network` would return for it, or the error it would raise.

    The values are those of `train_network` up to rounding, the bytes those of a pack of `MEMBERS`:
    fewer are filled up by the first one, and a member's result depends on neither the others nor
    on its place. Members whose checkpoints are at the same step go on from there, and all stop
    after step `until`. `BadInput` for members that cannot be in one pack.
    """
    config = _common(members)
    filled = [*members, *[members[0]] * (MEMBERS - len(members))]
    first = [_first(member, space) for member in filled]
    pack = placed(Pack(first, members[0].data.image_shape), device)
    average = MovingAverage(pack)
    optimiser = PackOptimiser(
        pack.weights,
        adam=config.optimiser == "adam",
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    parts: list[Parts] = [
        {
            "member": {
                "weights": pack.weights.detach()[place],
                "average": average.module.weights.detach()[place],
                **{name: rows[place] for name, rows in optimiser.moments.items()},
            }
        }
        for place in range(MEMBERS)
    ]
    done, histories = _gone_on(filled, parts)
    coming = _together(filled, done, space=space, method=method, teacher=teacher, device=device)
    losses: list[Tensor] = []
    row_at, evaluate_at = evenly(config.steps, ROWS), evenly(config.steps, EVALUATIONS)
    ended: dict[int, TrainingDiverged] = {}

    def loss(step: int) -> Tensor:
        rates = [learning_rate(member.config, step - 1) for member in filled]
        optimiser.rates.copy_(torch.tensor(rates).unsqueeze(1))
        optimiser.step_number = step
        batch = next(coming)
        with precise(device, precision):
            outputs = pack(batch.images.unflatten(0, (MEMBERS, -1))).flatten(0, 1)
        if method is None:
            each = label_loss(outputs, batch.targets, config.regression_loss)
        else:
            each = method.loss(Step(batch, outputs, network=None))
        means = each.view(MEMBERS, -1).mean(1)
        losses.append(means.detach())
        return means.sum()  # a member's gradient is that of its own mean

    def after(step: int, _: Tensor) -> None:
        if step % AVERAGE_EVERY == 0 or step == config.steps:
            average.update(lag(config.ema_decay, step))
        if step not in row_at:
            return
        since = torch.stack(losses).mean(0).tolist()
        losses.clear()
        for place, member in enumerate(members):
            if not math.isfinite(since[place]) and place not in ended:
                ended[place] = TrainingDiverged(
                    f"training {config.network}: the loss up to step {step} of {config.steps} "
                    f"became {since[place]}; set lr below {member.config.lr:g}"
                )
            if place in ended:
                continue
            row = history_row(member.config, step, since[place])
            if eval is not None and step in evaluate_at:
                row |= eval(average.module.member(place))
            histories[place].append(row)
            if member.checkpoint is not None and step == until and step < config.steps:
                member.checkpoint.save(step, parts[place], histories[place])

    minimise(loss, optimiser, until or config.steps, first=done, after=after)
    return [
        ended.get(place) or (average.module.member(place), history)
        for place, history in enumerate(histories[: len(members)])
    ]


def _common(members: Sequence[Member]) -> StudentTraining:
    """What the members' settings have in common, with the first one's learning rate."""
    config = members[0].config
    if len(members) > MEMBERS:
        raise BadInput(f"a pack has {MEMBERS} members, got {len(members)}")
    for member in members:
        if member.config != config.model_copy(update={"lr": member.config.lr}):
            raise BadInput("the members of a pack may differ in lr alone, not in other settings")
    return config


def _first(member: Member, space: LabelSpace) -> Network:
    with torch.random.fork_rng(devices=[]):  # as `train_network` does
        torch.manual_seed(derive_seed(member.seed, "weights"))
        return first_network(member.config.network, member.data.image_shape, space, member.init)


def _gone_on(filled: Sequence[Member], parts: Sequence[Parts]) -> tuple[int, list[History]]:
    """The steps that all members have done, and their histories."""
    loaded = [
        (0, History()) if member.checkpoint is None else member.checkpoint.load(part)
        for member, part in zip(filled, parts, strict=True)
    ]
    if len({step for step, _ in loaded}) > 1:
        raise BadInput("the members of a pack must go on from the same step")
    return loaded[0][0], [history for _, history in loaded]


def _together(
    filled: Sequence[Member],
    first: int,
    *,
    space: LabelSpace,
    method: Method | None,
    teacher: Teacher | None,
    device: torch.device,
) -> Iterator[Batch]:
    """The members' batches one after the other, as one of `[members · b]` images a step.

    Members with the same images and seed, whose learning rates differ, share their batches.
    """
    config = filled[0].config
    owners = [(id(member.data), member.seed) for member in filled]
    streams = {
        owner: batches_of(
            member.data, config, space, method, teacher, seed=member.seed, device=device
        ).of(config.steps, first=first)
        for owner, member in zip(owners, filled, strict=True)
    }
    for _ in range(first, config.steps):
        coming = {owner: next(stream) for owner, stream in streams.items()}
        batches = [coming[owner] for owner in owners]
        yield Batch(
            torch.cat([batch.images for batch in batches]),
            torch.cat([batch.targets for batch in batches]),
            torch.cat([batch.teacher_logits for batch in batches]),
        )
