"""The command line: a command is one function with its options, which calls the one that works."""

from pathlib import Path
from typing import Annotated

import typer

from cgankd.app.answering import answering

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
    int | None,
    typer.Option(min=1, help="Worker processes of a stage; this machine's cores if not given."),
]
BackendOption = Annotated[str, typer.Option(help="serial, processes or ray.")]
RedoOption = Annotated[
    list[str], typer.Option(help="Replace a finished stage made with other settings. Repeatable.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Read the cached copy of this very version alone.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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
    with answering(json) as answer:
        from cgankd.app import pipeline

        answer.result = pipeline.run(
            recipe,
            out=out,
            overrides=set_,
            device=device,
            workers=workers,
            backend=backend,
            redo=redo,
            dry_run=dry_run,
            console=answer.console,
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
        with answering(json) as answer:
            from cgankd.app import pipeline

            answer.result = pipeline.stage(
                function,
                run,
                recipe=recipe,
                overrides=set_,
                device=device,
                workers=workers,
                backend=backend,
                redo=redo,
                console=answer.console,
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
    ("train-students", "students", "Train every arm's students; steps and rates by validation."),
    ("report", "report", "Evaluate the students on the test split; write report/report.html."),
):
    _stage_command(_name, _function, _help)


@app.command("select")
def select(
    run: RunArgument,
    name: Annotated[str, typer.Option(help="The selection's name.")] = "cgan-kd",
    set_: SetOption = [],
    json: JsonOption = False,
) -> None:
    """Decide which samples to keep, from tables alone; every drop has a reason."""
    with answering(json) as answer:
        from cgankd.app import pipeline

        answer.result = pipeline.select(run, name=name, overrides=set_, console=answer.console)


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
    with answering(json) as answer:
        from cgankd.app import pipeline

        answer.result = pipeline.check(
            run,
            selection=selection,
            overrides=set_,
            device=device,
            workers=workers,
            backend=backend,
            console=answer.console,
        )


@app.command("diff")
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="A run folder, a release folder or a Hub id.")
    ],
    after: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another one; A again if not given.")
    ] = None,
    from_: Annotated[str, typer.Option("--from", help="The selection, where A is a run.")] = (
        "cgan-kd"
    ),
    to: Annotated[str, typer.Option("--to", help="The selection, where B is a run.")] = "cgan-kd",
    json: JsonOption = False,
) -> None:
    """Show what changed between two releases or selections: samples with the reasons, counts,
    labels, columns, policy, recipe, weights and metrics.
    """
    with answering(json) as answer:
        from cgankd.app import diff

        answer.result = diff.diff(before, after, from_=from_, to=to, console=answer.console)


@app.command("review")
def review(
    spec: Annotated[
        str, typer.Argument(help="A run folder, a release folder, or user/name[@vX.Y.Z].")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page is served.")] = 8501,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    reviewer: Annotated[
        str | None, typer.Option(help="Who gives the verdicts; the login name if not given.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Look at samples in a browser, judge them, try policies, compare and release."""
    with answering(json) as answer:
        from cgankd.app.review.served import serve

        answer.result = serve.serve(
            spec, port=port, host=host, reviewer=reviewer, console=answer.console
        )


@app.command("regenerate")
def regenerate(
    where: Annotated[
        str, typer.Argument(help="A run folder, a release folder, or user/name[@vX.Y.Z].")
    ],
    keys: Annotated[str | None, typer.Option(help="Keys and ranges, such as 12,15-20.")] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys-file", help="A text file of the same.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Exit 1 where pixels are not those recorded.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write KEY.png into this folder.")] = None,
    generator: Annotated[
        Path | None,
        typer.Option(help="The generator's folder; the run's or the linked repo's if not given."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make samples again from their rows and the generator's weights, and compare the pixels."""
    with answering(json) as answer:
        from cgankd.app import regenerating

        answer.result = regenerating.regenerate(
            where,
            keys=keys,
            keys_file=keys_file,
            verify=verify,
            out=out,
            generator=generator,
            console=answer.console,
        )


@app.command("release")
def release(
    run: RunArgument,
    version: Annotated[
        str | None,
        typer.Option(help="vMAJOR.MINOR.PATCH; if not given, what changed decides."),
    ] = None,
    selection: Annotated[str, typer.Option(help="The selection to release.")] = "cgan-kd",
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Include dropped samples, so others can re-select.")
    ] = False,
    h5: Annotated[
        bool, typer.Option("--h5", help="Also write fake_images and fake_labels to one HDF5 file.")
    ] = False,
    wds: Annotated[
        bool, typer.Option("--wds", help="Also build the tar copy, VERSION-wds, beside it.")
    ] = False,
    set_: SetOption = [],
    json: JsonOption = False,
) -> None:
    """Build the release folder: Parquet, scores, manifest and card, as the next version.

    What is known of the real set goes into the card: --set card.license=cc-by-4.0, card.citation,
    card.homepage; --set release.generator_repo=user/name says where the generator is published.
    """
    with answering(json) as answer:
        from cgankd.app import pipeline

        answer.result = pipeline.release(
            run,
            version=version,
            selection=selection,
            rejected=rejected,
            h5=h5,
            wds=wds,
            overrides=set_,
            console=answer.console,
        )


@app.command("verify")
def verify(
    spec: Annotated[
        str, typer.Argument(help="A release or run folder, or user/name[@v1.0.0] on the Hub.")
    ],
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    """Compare every file with the manifest; exit 1 where anything was changed."""
    with answering(json) as answer:
        from cgankd.app import inspecting

        answer.result = inspecting.verify(spec, offline=offline, console=answer.console)


@app.command("publish")
def publish(
    folder: Annotated[Path, typer.Argument(help="A release folder.")],
    target: Annotated[str, typer.Argument(help="user/name[@v1.0.0]: where it goes on the Hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent and deleted; stop.")
    ] = False,
    generator: Annotated[
        Path | None, typer.Option(help="Also publish this generator (RUN/generator).")
    ] = None,
    generator_repo: Annotated[
        str | None, typer.Option(help="The model repository of the generator, user/name.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="The commit's message.")] = None,
    allow_failures: Annotated[
        bool,
        typer.Option(
            "--allow-failures", help="Publish a selection that failed its check or had none."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Put a release on the Hub as one version. If it was interrupted, run it again."""
    with answering(json) as answer:
        from cgankd.app import publishing

        answer.result = publishing.publish_release(
            folder,
            target,
            private=private,
            dry_run=dry_run,
            generator=generator,
            generator_repo=generator_repo,
            message=message,
            allow_failures=allow_failures,
            console=answer.console,
        )


@app.command("pull")
def pull(
    spec: Annotated[str, typer.Argument(help="user/name[@v1.0.0], or a release folder.")],
    out: Annotated[Path, typer.Option(help="The new folder.")],
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    """Fetch a verified copy of a release into a plain folder."""
    with answering(json) as answer:
        from cgankd.app import publishing

        answer.result = publishing.pull(spec, out=out, offline=offline, console=answer.console)


@app.command("train-student")
def train_student(
    dataset: Annotated[str, typer.Option(help="A release folder, or user/name[@v1.0.0].")],
    student: Annotated[str, typer.Option(help="The network, such as resnet8x4.")],
    out: Annotated[Path, typer.Option(help="Where model.safetensors goes.")],
    real: Annotated[str, typer.Option(help="Source of real images, or none.")] = "none",
    method: Annotated[
        str,
        typer.Option(
            help="labels, or a distillation: a kind, such as hinton, or one that the recipe sets."
        ),
    ] = "labels",
    set_: SetOption = [],
    seed: Annotated[int, typer.Option(help="Initialisation and order.")] = 0,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read a few files at a time and keep none.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Decoded images; HF_HOME/cgankd/decoded if not given.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train one student from a release. To resume, run it again."""
    with answering(json) as answer:
        from cgankd.app import train_from_release

        answer.result = train_from_release.train(
            dataset,
            student,
            out,
            real=real,
            method=method,
            overrides=set_,
            seed=seed,
            device=device,
            reading=train_from_release.Reading(offline, streaming, cache),
            console=answer.console,
        )


@app.command("evaluate")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A student's or teacher's folder.")],
    source: Annotated[str, typer.Option(help="Images to evaluate on.")],
    set_: SetOption = [],
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure a trained network on a source's test images; keep it in evaluation.json."""
    with answering(json) as answer:
        from cgankd.app import evaluating

        answer.result = evaluating.evaluate(
            model, source, overrides=set_, device=device, console=answer.console
        )


@app.command("publish-student")
def publish_student(
    student: Annotated[Path, typer.Argument(help="What train-student wrote.")],
    target: Annotated[str, typer.Argument(help="user/name[@v1.0.0]: where it goes on the Hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent; stop.")
    ] = False,
    license: Annotated[
        str | None, typer.Option(help="The licence of the weights; none is named if not given.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Put a student's weights, config and card on the Hub as one version."""
    with answering(json) as answer:
        from cgankd.app import publishing

        answer.result = publishing.publish_student(
            student,
            target,
            private=private,
            dry_run=dry_run,
            license=license,
            console=answer.console,
        )


@app.command("info")
def info(
    path: Annotated[Path, typer.Argument(help="A run or release folder.")],
    json: JsonOption = False,
) -> None:
    """Show what a folder holds and which stages are done."""
    with answering(json) as answer:
        from cgankd.app import inspecting

        answer.result = inspecting.info(path, console=answer.console)


@app.command("recipes")
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this preset's YAML.")] = None,
    json: JsonOption = False,
) -> None:
    """List the presets, or print one."""
    with answering(json) as answer:
        from cgankd.app import inspecting

        answer.result = inspecting.recipes(name=name, console=answer.console)


@app.command("doctor")
def doctor(json: JsonOption = False) -> None:
    """Check this machine: versions, device, threads, disk, extras."""
    with answering(json) as answer:
        from cgankd.app import inspecting

        answer.result = inspecting.doctor(console=answer.console)


def main() -> None:
    """The `cgankd` command."""
    app()
