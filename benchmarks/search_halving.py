"""What dropping learning rates halfway costs and saves: `python -m benchmarks.search_halving RUN…`

For every run folder with selections, the search as `cgankd run` does it and the full one, each in
a copy: the run's own students stay as they are. A line for each arm whose choice differs: how far
the chosen rate's validation merit is below that of the full search's choice, and its standard error
over the images. The last line has the most of these errors, and the searches' processor seconds.
"""

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgankd.app.console import Console
from cgankd.app.pipeline import opened, recipe_of_run
from cgankd.app.stages.students import ArmSearch
from cgankd.app.student_arrays import write_arrays
from cgankd.student.arms import choose

PARTS = ("teacher", "pool", "scores", "selections", "recipe.yaml", "run.json")


def main() -> None:
    """Prints a line a run and the whole at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    worst, halved, full = -math.inf, 0.0, 0.0
    for run in parser.parse_args().runs:
        with tempfile.TemporaryDirectory() as folder:
            found = compared(run, Path(folder))
        worst, halved, full = max(worst, found[0]), halved + found[1], full + found[2]
        print(f"{run}: {found[0]:.2f} standard errors at most, {found[1]:.1f} of {found[2]:.1f} s")
    print(
        f"dropping rates halfway: at most {worst:.2f} standard errors lost (demanded: at most 1), "
        f"processor time {halved / full:.2f} of the full search's"
    )


def compared(run: Path, folder: Path) -> tuple[float, float, float]:
    """The most standard errors lost in an arm, and the processor seconds of both searches."""
    with search_in(run, folder / "halving") as search:
        start = time.process_time()
        search.run()
        halving = time.process_time() - start
        ours, ours_merits = dict(search.chosen), search.validation()
    with search_in(run, folder / "full") as search:
        search.steps = ours["no-kd"][0]
        start = time.process_time()
        grids = {name: search.grid(name) for name in search.ctx.recipe.arms}
        search.train((job for grid in grids.values() for jobs in grid.values() for job in jobs), "")
        full = time.process_time() - start
        for name, grid in grids.items():
            figures = {setting: [job.figures() for job in jobs] for setting, jobs in grid.items()}
            search.chosen[name] = (*choose(figures), [])
        theirs, theirs_merits = search.chosen, search.validation()
    lost = [0.0]
    for name, (steps, lr, _) in theirs.items():
        if ours[name][:2] != (steps, lr):
            of_images = theirs_merits[name].mean(0)
            below = float(of_images.mean() - ours_merits[name].mean())
            error = float(of_images.std(ddof=1)) / math.sqrt(len(of_images))
            lost.append(below / error)
            print(
                f"{run}, {name}: {ours[name][1]:g} halved, {lr:g} by the full search, whose merit "
                f"is {below:.3g} more, with a standard error of {error:.2g}"
            )
    return max(lost), halving, full


@contextmanager
def search_in(run: Path, copy: Path) -> Iterator[ArmSearch]:
    """A search in a copy of what it needs of a run, in this process."""
    copy.mkdir()
    for part in PARTS:
        if (run / part).is_dir():
            shutil.copytree(run / part, copy / part)
        else:
            shutil.copy(run / part, copy / part)
    recipe = recipe_of_run(copy, None, ())
    with opened(copy, recipe, console=Console(json=True), backend="serial") as ctx:
        yield ArmSearch(ctx, write_arrays(ctx), list(ctx.recipe.arms))


if __name__ == "__main__":
    main()
