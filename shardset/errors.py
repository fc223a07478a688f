"""The errors a user can cause, drawn once; `app` prints their one line and exits with their code.

CgankdError               exit 1: the work failed
├── BadInput              exit 2: what was given cannot be used; nothing was written
│   ├── SourceError       real images that cannot be read as asked
│   ├── RecipeError       a recipe with an unknown, wrong or impossible value
│   ├── CheckpointError   weights with other keys, shapes or contents than expected
│   ├── StaleStage        a finished stage was made with other settings than the recipe's
│   └── RunBusy           another process works in the same run folder
├── CorruptShard          a shard, table or marker on disk is not what its marker says
├── ReleaseError          a release cannot be built, read or verified
├── HubError              the Hub refused, failed or did not answer
├── TrainingDiverged      a loss became NaN or a network collapsed
├── RatioRefused          a density ratio failed its diagnostics
└── CheckFailed           a selection is beyond a threshold of the recipe's check
"""


class CgankdError(Exception):
    """The work failed; the message says what, where, what was expected and what to do."""

    exit_code = 1


class BadInput(CgankdError):
    """What the user gave cannot be used; raised before anything is written."""

    exit_code = 2


class SourceError(BadInput):
    """Real images that cannot be read as asked."""


class RecipeError(BadInput):
    """A recipe with an unknown, wrong or impossible value."""


class CheckpointError(BadInput):
    """Weights with other keys, shapes or contents than expected."""


class StaleStage(BadInput):
    """A finished stage was made with other settings than the recipe's."""


class RunBusy(BadInput):
    """Another process works in the same run folder."""


class CorruptShard(CgankdError):
    """A shard, table or marker on disk is not what its marker says."""


class ReleaseError(CgankdError):
    """A release cannot be built, read or verified."""


class HubError(CgankdError):
    """The Hub refused, failed or did not answer; running again may be all there is to do."""


class TrainingDiverged(CgankdError):
    """A loss became NaN or a network collapsed."""


class RatioRefused(CgankdError):
    """A density ratio failed its diagnostics."""


class CheckFailed(CgankdError):
    """A selection is beyond a threshold of the recipe's check."""
