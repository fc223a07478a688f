"""What is copied among the kept samples: of real images, and of one another."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.pages.check_page import Pair
from cgankd.app.pages.check_sets import Kept
from cgankd.curation.neighbours.table import Neighbours
from cgankd.curation.policies.neighbour_rules import aligned_rows, duplicate_groups, memorised
from cgankd.curation.policies.selection import Scores

SHOWN = 20  # pairs of images of a kind


@dataclass(frozen=True)
class Copies:
    """What is copied among the kept samples."""

    memorised: np.ndarray  # rows of the pool, the most similar first
    real_id: np.ndarray  # of each the training image
    similarity: np.ndarray
    component: np.ndarray  # int64 [k]: kept samples that are near-duplicates share it
    groups: list[np.ndarray]  # rows of each group of near-duplicates, the largest first

    @property
    def shown(self) -> np.ndarray:
        """The rows of the pool whose images the page shows."""
        pairs = [rows[:2] for rows in self.groups[:SHOWN]]
        return np.concatenate([*pairs, self.memorised[:SHOWN]])


def find_copies(ctx: Context, neighbours: Neighbours, scores: Scores, kept: Kept) -> Copies:
    """By the recipe's thresholds, or calibrated ones where it has none."""
    policy = ctx.recipe.policy
    rows = aligned_rows(neighbours, scores.key, scores.scored)
    groups, chosen = scores.group[rows], np.isin(rows, kept.rows)
    copied = np.flatnonzero(
        memorised(neighbours, groups, policy.memorised or "calibrated") & chosen
    )
    similarity = neighbours.nearest_real_similarity[copied]
    order = np.lexsort((copied, -similarity))
    component = duplicate_groups(neighbours, groups, policy.duplicates or "calibrated")[chosen]
    own = rows[chosen]
    by_component = np.argsort(component, kind="stable")
    starts = np.unique(component[by_component], return_index=True)[1]
    alike = [part for part in np.split(own[by_component], starts[1:]) if len(part) > 1]
    return Copies(
        memorised=rows[copied[order]],
        real_id=neighbours.nearest_real_id[copied[order]],
        similarity=similarity[order],
        component=component,
        groups=sorted(alike, key=lambda part: (-len(part), part[0])),
    )


def copies_facts(scores: Scores, copies: Copies) -> Facts:
    """Every group of near-duplicates and every memorised pair, by key."""
    return {
        "duplicates": [scores.key[rows].tolist() for rows in copies.groups],
        "memorised": [
            {"key": key, "real_id": real, "similarity": similarity}
            for key, real, similarity in zip(
                scores.key[copies.memorised].tolist(),
                copies.real_id.tolist(),
                copies.similarity.astype(float).tolist(),
                strict=True,
            )
        ],
    }


def image_pairs(
    ctx: Context, pictures: Mapping[int, np.ndarray], scores: Scores, copies: Copies
) -> dict[str, list[Pair]]:
    """The pairs that the page shows; `pictures` has the images of the rows `shown` by key."""
    key, name_of = scores.key, ctx.space.display
    alike = [
        Pair(
            pictures[int(key[rows[0]])],
            pictures[int(key[rows[1]])],
            f"{name_of(scores.label[rows[0]])}: {len(rows)} alike",
        )
        for rows in copies.groups[:SHOWN]
    ]
    memorised = [
        Pair(
            pictures[int(key[row])],
            ctx.data.train_pixels[real],
            f"{name_of(scores.label[row])}: similarity {similarity:.4f}",
        )
        for row, real, similarity in zip(
            copies.memorised[:SHOWN], copies.real_id, copies.similarity, strict=False
        )
    ]
    return {"duplicates": alike, "memorised": memorised}
