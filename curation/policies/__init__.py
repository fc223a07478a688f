"""What to keep of a pool: a policy is data in the recipe, a record of slots in a fixed order."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from cgankd.curation.policies.neighbour_rules import Copies, Duplicates, Outliers
from cgankd.curation.policies.quotas import Farthest, LowestKeys, NearestToCentres
from cgankd.curation.policies.rule import Source
from cgankd.curation.policies.subsampling import BudgetedRejection, Rejection
from cgankd.curation.policies.teacher_rules import Agreement, Band, Quantile, TeacherLabels
from cgankd.shardset.errors import BadInput
from cgankd.shardset.records import Record

Subsample = Annotated[BudgetedRejection | Rejection, Field(discriminator="kind")]
Filter = Annotated[Quantile | Band | Agreement, Field(discriminator="kind")]
Quota = Annotated[LowestKeys | Farthest | NearestToCentres, Field(discriminator="kind")]
Rule = Subsample | Filter | Copies | Outliers | Duplicates | TeacherLabels | Quota

# The kind of a slot whose settings name none, and its name for a threshold alone.
DEFAULT_KINDS = {
    "subsample": "budget",
    "filter": "quantile",
    "copies": "similarity",
    "outliers": "distance",
    "duplicates": "similarity",
    "relabel": "teacher",
    "quota": "lowest-keys",
}
# Fields as they were called until 0.1, when a policy was flat, and where they are now.
OLD_FIELDS = {
    "subsample": ("subsample", "kind"),
    "filter": ("filter", "kind"),
    "relabel": ("relabel", "kind"),
    "diversity": ("quota", "kind"),
    "memorised": ("copies", "threshold"),
    "outliers": ("outliers", "threshold"),
    "duplicates": ("duplicates", "threshold"),
    "quota": ("quota", "size"),
    "accept": ("subsample", "accept"),
    "rho": ("filter", "rho"),
    "scope": ("filter", "scope"),
    "band_low": ("filter", "low"),
    "agreement_within": ("filter", "within"),
}
FIELDS_OF_KINDS = {
    rule.model_fields["kind"].default: frozenset(rule.model_fields)
    for rule in (Rejection, BudgetedRejection, Quantile, Band, Agreement)
}


class Policy(Record):
    """Subsample by density ratio, filter by teacher, drop copies of real images, outliers and
    duplicates, replace labels, meet quotas: in that order, which decides the reason of a drop.

    A label is a class, or one of the equal parts of a range. A slot that is null does nothing; the
    names of before are read, see `current_names`.
    """

    subsample: Subsample | None = Field(
        BudgetedRejection(), description="by density ratio, with the key's own uniform number"
    )
    filter: Filter | None = Field(Quantile(), description="by the teacher")
    copies: Copies | None = Field(None, description="copies of real training images")
    outliers: Outliers | None = Field(None, description="what is far from its label's real images")
    duplicates: Duplicates | None = Field(None, description="near-duplicates of one another")
    relabel: TeacherLabels | None = Field(None, description="other labels than the assigned")
    quota: Quota | None = Field(None, description="the most of each label; null: all")

    @model_validator(mode="before")
    @classmethod
    def _with_kinds(cls, entries: Any) -> Any:
        """Entries by current names, in which every slot that is filled names its kind."""
        if not isinstance(entries, Mapping):
            return entries
        current, _ = current_names(entries)
        return {
            name: {"kind": DEFAULT_KINDS[name], **value}
            if name in DEFAULT_KINDS and isinstance(value, Mapping)
            else value
            for name, value in current.items()
        }

    @property
    def rules(self) -> dict[str, Rule]:
        """The rules of the slots that are filled, in the order in which they decide."""
        slots = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: rule for name, rule in slots.items() if rule is not None}

    def reads(self, *sources: Source) -> bool:
        """Whether any rule decides by one of these."""
        return bool(self.slots_by(*sources))

    def slots_by(self, *sources: Source) -> tuple[str, ...]:
        """The slots whose rule decides by one of these."""
        return tuple(n for n, rule in self.rules.items() if not rule.reads.isdisjoint(sources))

    def by_scores_alone(self) -> "Policy":
        """The policy without what goes by neighbours or features; a quota keeps its size."""
        off: dict[str, Any] = dict.fromkeys(self.slots_by("neighbours", "features"))
        if "quota" in off and self.quota is not None:
            off["quota"] = LowestKeys(size=self.quota.size)
        return self.model_copy(update=off)


def current_names(
    entries: Mapping[str, Any], onto: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """A policy's entries by slot, from old flat names or new ones; and one line for each old name.

    onto: entries by slot that these change, as `--set` does. Without it `entries` are a whole
    policy as a file holds it: an old one names every field, so what its kinds make idle is left
    out. With it such a field stays where it was put, for `Policy` to refuse by name.

    >>> current_names({"filter": "band", "rho": 0.8})[0]
    {'filter': {'kind': 'band', 'rho': 0.8}}
    """
    slots = dict(onto or {})
    old = {}
    for name, value in entries.items():
        is_flat = name not in DEFAULT_KINDS or isinstance(value, str | bool | int | float)
        if name in OLD_FIELDS and is_flat:
            old[name] = value
        else:
            slots[name] = value
    for name in OLD_FIELDS:  # kinds come before the settings that depend on them
        if name in old:
            _put(slots, name, old[name], is_whole=onto is None)
    lines = []
    for name in old:
        slot, field = OLD_FIELDS[name]
        now = slots.get(slot)
        if isinstance(now, Mapping) and field in now:
            lines.append(f"policy.{name} is now policy.{slot}.{field}")
        elif now is None and name in ("subsample", "filter", "relabel", "memorised"):
            lines.append(f"policy.{name}={old[name]} is now policy.{slot}=null")
    return slots, lines


def _put(slots: dict[str, Any], name: str, value: Any, is_whole: bool) -> None:
    """Puts one old field where it is now."""
    slot, field = OLD_FIELDS[name]
    given = slots.get(slot)
    now = dict(given) if isinstance(given, Mapping) else {}
    if name in ("subsample", "filter"):
        known = FIELDS_OF_KINDS.get(value, frozenset(now))
        settings = {key: setting for key, setting in now.items() if key in known}
        slots[slot] = None if value == "none" else {**settings, "kind": value}
    elif name == "relabel":
        slots[slot] = {"kind": "teacher"} if value is True else None if value is False else value
    elif name == "diversity" and value == "none":
        if given is not None:
            slots[slot] = {**now, "kind": "lowest-keys"}
    elif name == "memorised" and value is None:
        slots[slot] = None
    elif name in ("diversity", "quota", "memorised", "outliers", "duplicates"):
        slots[slot] = {**now, field: value}
    elif slot in slots and given is None:
        if not is_whole:
            raise BadInput(
                f"policy.{name} is now policy.{slot}.{field}, and policy.{slot} is null, so that "
                f"it would have no effect; give policy.{slot}.kind"
            )
    elif not is_whole or field in FIELDS_OF_KINDS.get(
        now.get("kind", DEFAULT_KINDS[slot]), frozenset({field})
    ):
        slots[slot] = {**now, field: value}
