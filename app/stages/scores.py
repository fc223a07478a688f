"""The score tables: a row for every pool sample, with what the teacher and the ratio say of it.

Reads the pool's plan, the teacher and the density ratio, unless that was refused.
"""

from cgankd.app.context import Context, Facts
from cgankd.curation.scoring import ScoreJob, score_shard
from cgankd.shardset.files import fingerprint
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.records import RatioFacts, ScoreFacts, TeacherFacts


def fields_of(ctx: Context) -> Facts:
    """What the stage reads."""
    ratio = ctx.run.read_facts("ratio", RatioFacts)
    plan = read_plan(ctx.run.pool / "plan.json")
    return {
        "device": ctx.device.type,
        "precision": ctx.precision,
        "plan": plan.model_dump(mode="json", exclude={"rounds"}),
        "teacher_sha256": ctx.run.read_facts("teacher", TeacherFacts).sha256,
        "ratio_sha256": None if ratio.problems else ratio.sha256,
    }


def score(ctx: Context) -> ScoreFacts:
    """Facts of the score tables, one for every pool shard."""
    ratio = ctx.run.read_facts("ratio", RatioFacts)
    plan, fields = read_plan(ctx.run.pool / "plan.json"), fields_of(ctx)
    ctx.is_done("scores", fields)  # stale scores are refused; new shards are scored below
    jobs = [
        ScoreJob(
            pool_folder=ctx.run.pool,
            scores_folder=ctx.run.scores,
            index=spec.index,
            fingerprint=fingerprint(fields),
            load_teacher=ctx.teacher_loader,
            space=ctx.space,
            ratio_folder=None if ratio.problems else ctx.run.ratio,
            device=ctx.device.type,
            batch=plan.batch,
        )
        for spec in plan.shards
    ]
    sizes = [spec.count for spec in plan.shards]
    small = ctx.few_pixels(plan.count)
    shards = ctx.map(score_shard, jobs, "scores", sizes=sizes, small=small)
    facts = ScoreFacts(rows=plan.count, sha256=fingerprint({"shards": shards}))
    return ctx.finish("scores", fields, facts)
