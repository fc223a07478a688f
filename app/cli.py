"""The command line: one function per command, no work of its own."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="cgankd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil a strong network into a small one through curated samples of a conditional GAN.",
)

RecipeArgument = Annotated[str, typer.Argument(help="A preset (see `recipes`) or a YAML file.")]
RunArgument = Annotated[Path, typer.Argument(help="The run folder.")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="Override a recipe field: path=value. Repeatable.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; this machine's cores if not given.")
]
BackendOption = Annotated[str, typer.Option(help="serial, processes or ray.")]
RedoOption = Annotated[
    list[str], typer.Option(help="Replace a finished stage made with other settings. Repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _call(command: str, json: bool, **arguments: Any) -> None:
    """Runs a function of `app.commands`; its errors become one line and an exit code."""
    from app.console import Console
    from shardset.errors import CgankdError

    console = Console(json=json)
    try:
        from app import commands

        result = getattr(commands, command)(console=console, **arguments)
    except CgankdError as error:
        console.error(str(error))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        console.error(f"{error.filename or 'operating system'}: {error.strerror or error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.error("interrupted; run the same command again to continue")
        raise typer.Exit(1) from None
    if json:
        console.result(result)


@app.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME if not given.")] = None,
    set_: SetOption = [],
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    backend: BackendOption = "processes",
    redo: RedoOption = [],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and estimates; stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the whole pipeline, from real images to the report. To resume, run it again."""
    _call(
        "run",
        json,
        recipe=recipe,
        out=out,
        overrides=set_,
        device=device,
        workers=workers,
        backend=backend,
        redo=redo,
        dry_run=dry_run,
    )


def _stage_command(name: str, function: str, help_: str) -> None:
    """Adds one stage as a command over an existing run folder."""

    def stage(
        run: RunArgument,
        recipe: Annotated[
            str | None, typer.Option(help="Begin a new run folder with this recipe.")
        ] = None,
        set_: SetOption = [],
        device: DeviceOption = "auto",
        workers: WorkersOption = None,
        backend: BackendOption = "processes",
        redo: RedoOption = [],
        json: JsonOption = False,
    ) -> None:
        _call(
            "stage",
            json,
            name=function,
            run=run,
            recipe=recipe,
            overrides=set_,
            device=device,
            workers=workers,
            backend=backend,
            redo=redo,
        )

    stage.__doc__ = help_
    app.command(name)(stage)


for _name, _function, _help in (
    ("train-teacher", "teacher", "Train or load the teacher of a run folder."),
    ("train-generator", "generator", "Train the conditional GAN."),
    ("produce", "pool", "Produce the pool: seeds and labels into shards."),
    ("fit-ratio", "ratio", "Fit the density ratio; exit 1 where its diagnostics fail."),
    ("score", "scores", "Score every pool sample: density ratio and teacher."),
    ("find-neighbours", "neighbours", "Find near-duplicates, nearest real images and outliers."),
    ("report", "report", "Evaluate on the test split and write report/report.html."),
):
    _stage_command(_name, _function, _help)


@app.command("select")
def select(
    run: RunArgument,
    name: Annotated[str, typer.Option(help="The selection's name.")] = "cgan-kd",
    set_: SetOption = [],
    redo: RedoOption = [],
    json: JsonOption = False,
) -> None:
    """Decide which samples to keep, from tables alone; every drop has a reason."""
    _call("select", json, run=run, name=name, overrides=set_, redo=redo)


@app.command("check")
def check(
    run: RunArgument,
    selection: Annotated[str, typer.Option(help="The selection to check.")] = "cgan-kd",
    set_: SetOption = [],
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    backend: BackendOption = "processes",
    json: JsonOption = False,
) -> None:
    """Write check/check.html on a selection; exit 1 beyond the recipe's check thresholds."""
    _call(
        "check",
        json,
        run=run,
        selection=selection,
        overrides=set_,
        device=device,
        workers=workers,
        backend=backend,
    )


@app.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A run or release folder.")],
    after: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="Another one; A again if not given.")
    ] = None,
    from_: Annotated[str, typer.Option("--from", help="The selection, where A is a run.")] = (
        "cgan-kd"
    ),
    to: Annotated[str, typer.Option("--to", help="The selection, where B is a run.")] = "cgan-kd",
    json: JsonOption = False,
) -> None:
    """Show which samples came, went or have another label between two selections, and why."""
    _call("diff", json, before=before, after=after, from_=from_, to=to)


@app.command("release")
def release(
    run: RunArgument,
    version: Annotated[str, typer.Option(help="vMAJOR.MINOR.PATCH")] = "v1.0.0",
    selection: Annotated[str, typer.Option(help="The selection to release.")] = "cgan-kd",
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Include dropped samples, so others can re-select.")
    ] = False,
    h5: Annotated[
        bool, typer.Option("--h5", help="Also write fake_images and fake_labels to one HDF5 file.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Build the release folder: Parquet, scores, manifest and card."""
    _call("release", json, run=run, version=version, selection=selection, rejected=rejected, h5=h5)


@app.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(help="A release folder or a run folder.")],
    json: JsonOption = False,
) -> None:
    """Compare every file with the manifest; exit 1 where anything was changed."""
    _call("verify", json, path=path)


@app.command("train-student")
def train_student(
    dataset: Annotated[str, typer.Option(help="A release folder.")],
    student: Annotated[str, typer.Option(help="The network, such as resnet8x4.")],
    out: Annotated[Path, typer.Option(help="Where model.safetensors goes.")],
    real: Annotated[str, typer.Option(help="Source of real images, or none.")] = "none",
    method: Annotated[str, typer.Option(help="labels or hinton.")] = "labels",
    set_: SetOption = [],
    seed: Annotated[int, typer.Option(help="Initialisation and order.")] = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train one student from a release, with or without real images."""
    _call(
        "train_student",
        json,
        dataset=dataset,
        student=student,
        out=out,
        real=real,
        method=method,
        overrides=set_,
        seed=seed,
        device=device,
    )


@app.command("evaluate")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A student's or teacher's folder.")],
    source: Annotated[str, typer.Option(help="Images to evaluate on.")],
    set_: SetOption = [],
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure a trained network on a source's test images."""
    _call("evaluate", json, model=model, source=source, overrides=set_, device=device)


@app.command("info")
def info(
    path: Annotated[Path, typer.Argument(help="A run or release folder.")],
    json: JsonOption = False,
) -> None:
    """Show what a folder holds and which stages are done."""
    _call("info", json, path=path)


@app.command("recipes")
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this preset's YAML.")] = None,
    json: JsonOption = False,
) -> None:
    """List the presets, or print one."""
    _call("recipes", json, name=name)


@app.command("doctor")
def doctor(json: JsonOption = False) -> None:
    """Check this machine: versions, device, threads, disk, extras."""
    _call("doctor", json)


def main() -> None:
    """The `cgankd` command."""
    app()
