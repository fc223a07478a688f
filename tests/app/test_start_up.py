"""What a command imports before it works: what its stage needs, and nothing that takes long."""

import subprocess
import sys

SLOW = (
    "pandas scipy sympy sklearn datasets huggingface_hub matplotlib streamlit webdataset faiss ray"
)


def test_the_stages_are_there_before_any_slow_package_is() -> None:
    """Each of these waits in the function that needs it."""
    script = (
        "import sys, cgankd.app.pipeline, cgankd.generator.produce, cgankd.curation.scoring\n"
        f"print(sorted(set({SLOW!r}.split()) & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == "[]"


def test_latents_of_a_pool_need_no_scipy() -> None:
    """Nor does a worker process that draws them."""
    script = (
        "import sys\nfrom cgankd.shardset.identity import latents\n"
        "latents(0, 0, 4, 4)\nassert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_digits_are_read_without_scikit_learn() -> None:
    """Its import would take longer than everything else that reading them does."""
    script = (
        "import sys\nfrom cgankd.shardset.sources.digits import list_digits\n"
        "assert len(list_digits().ids) == 1797\nassert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
