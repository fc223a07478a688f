"""What the recipe's check lets pass, and what to change where it does not."""

from collections.abc import Mapping

from cgankd.app.recipe import CheckLimits

REMEDIES = {
    "memorised": "Set policy.memorised: calibrated; more real images help the generator",
    "duplicates": "Set policy.duplicates: calibrated, or train the generator longer",
    "agreement": "Filter by the teacher (policy.filter, policy.rho), or replace labels",
    "label_score": "Filter by the teacher (policy.filter, policy.rho), or replace labels",
    "auc": "Subsample by density ratio (policy.accept), or train the generator longer",
}


def failures(limits: CheckLimits, overall: Mapping[str, float | None]) -> dict[str, str]:
    """A line for each threshold that is not met; what cannot be measured does not meet one."""
    lines = {}
    for name, limit in limits.model_dump().items():
        value = overall.get(name)
        if limit is None:
            continue
        least = name == "agreement"
        if value is None:
            lines[name] = f"{name} cannot be measured here, and check.{name} is {limit:g}."
        elif value < limit if least else value > limit:
            side = "least" if least else "most"
            lines[name] = f"{name} is {value:.4g}, at {side} {limit:g} was asked for."
    return lines
