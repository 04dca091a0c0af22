"""What is asked before a task: an observation, the rules, the dry run, and the engine's own word on its start."""

from __future__ import annotations

from dataclasses import replace

from shardlift.backend import Backend
from shardlift.checks import Subject
from shardlift.engine.protocol import Engine
from shardlift.errors import EngineError, RefusedError
from shardlift.model import Cluster, Finding, Forecast, Image, Severity
from shardlift.planner import not_asked_finding, plan_and_forecast, refused_findings
from shardlift.service.requests import CheckReport, Intent


async def check_intent(backend: Backend, cluster: Cluster, image: Image, intent: Intent) -> CheckReport:
    """Changes nothing. Raises RefusedError when the cluster does not answer."""
    return (await look(backend, cluster, image, intent))[0]


async def look(backend: Backend, cluster: Cluster, image: Image, intent: Intent) -> tuple[CheckReport, Subject]:
    """`check_intent`, with what was looked at."""
    engine = backend.engine(cluster)
    try:
        subject = await _subject(engine, backend, cluster, image, intent)
        plan, forecast, findings = plan_and_forecast(subject)
        if plan is not None:
            plan = replace(plan, zones=intent.zones)
        if plan is not None and forecast is not None:
            findings += await _engines_word(engine, subject, forecast)
            if any(finding.severity is Severity.BLOCK for finding in findings):
                plan = None
    finally:
        await engine.close()
    return CheckReport(cluster.id, image.id, subject.strategy, findings, plan, forecast), subject


async def _subject(engine: Engine, backend: Backend, cluster: Cluster, image: Image, intent: Intent) -> Subject:
    try:
        seen = await engine.observe()
    except EngineError as error:
        raise RefusedError(
            f"cluster {cluster.name} does not answer: {error.message}", remedy="start its nodes, then try again"
        ) from error
    driver = backend.driver(cluster.driver)
    ready = await driver.image_ready(image)
    return Subject(
        seen=seen,
        cluster=cluster,
        image=image,
        strategy=intent.strategy,
        image_plugins=await driver.image_plugins(image) if ready else None,
        java_problem=await driver.java_problem(image),
        backup_check=intent.backup_check,
        load_check=intent.load_check,
        canary=intent.policy.canary,
        kind=intent.kind,
        chosen=intent.chosen,
        to_zones=intent.to_zones,
        unsaved=intent.unsaved,
        spreads=intent.zones is not None and intent.zones.spreads,
        batch_size=intent.batch_size,
    )


async def _engines_word(engine: Engine, subject: Subject, forecast: Forecast) -> tuple[Finding, ...]:
    """Whether the engine would make the planned moves off the first node to be drained, tried in a dry run of its own.

    Only of the first: the others are judged by a state of the cluster that does not exist yet.
    """
    if not forecast.first_moves:
        return ()
    try:
        return refused_findings(subject, await engine.try_moves(forecast.first_moves))
    except EngineError as error:
        return (not_asked_finding(subject, error.message),)
