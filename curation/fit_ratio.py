from pydantic import BaseModel, ConfigDict


class RatioConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def fit_ratio(*a, **k):
    return {"sha256": "x", "problems": ["stub"], "per_label": []}


def load_ratio(folder, device): ...
