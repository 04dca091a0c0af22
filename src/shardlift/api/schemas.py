"""Bodies of the CSS API, as the documentation page shows them and as requests are checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

AGENCY = r"^[A-Za-z0-9_-]{1,64}$"
IMAGE_REF = r"^[A-Za-z0-9._:-]{1,128}$"


class _Css(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ErrorBody(BaseModel):
    """Every error of the CSS API. The four keys say the same in the words of four generations of clients."""

    error_code: str = Field(description="CSS.xxxx, or APIGW.0301 for a wrong signature or token", examples=["CSS.0001"])
    error_msg: str = Field(description="What is wrong and what to do", examples=["Incorrect parameters."])
    errCode: str = Field(description="The same as error_code")  # noqa: N815  # the wire's own name
    externalMessage: str = Field(description="`error_code : error_msg`")  # noqa: N815  # the wire's own name


class ErrorFinding(BaseModel):
    """What a rule has to say against it."""

    rule: str = Field(description="Name of the rule, the same in logs, docs and overrides")
    severity: str = Field(description="block or warn")
    subject: str = Field(description="Node, index or cluster that it is about")
    reason: str = Field(description="What is wrong")
    evidence: str = Field(description="What was seen")
    remedy: str = Field(description="What to do about it")


class NativeErrorBody(ErrorBody):
    """Every error of the native API: the keys of a CSS error, and beside them what a program can act on."""

    error: str | None = Field(default=None, description="Kind of error, such as usage, not_found, refused or busy")
    message: str | None = Field(default=None, description="What is wrong, without code and remedy")
    field: str | None = Field(default=None, description="Name of the field that is wrong")
    value: Any = Field(default=None, description="Its value, as it was understood")
    remedy: str | None = Field(default=None, description="What to do about it")
    findings: list[ErrorFinding] | None = Field(default=None, description="Of a refusal: what each rule says")


class ImageInfo(_Css):
    """GetTargetImageIdDetail: an engine image that a cluster can be upgraded to."""

    id: str = Field(description="Image id; what `target_image_id` takes")
    display_name: str = Field(description="`{engineVersion}_{release}_{MMDD}`", examples=["7.10.2_22.5.1_1230"])
    image_desc: str = Field(description="What the image holds")
    datastore_type: str = Field(description="Engine: elasticsearch or opensearch")
    datastore_version: str = Field(description="Engine version", examples=["2.19.4"])
    priority: int = Field(description="The higher, the more recommended")


class ImageList(_Css):
    """Images that the cluster can go to."""

    need_upload_upgrade_plugin: bool = Field(description="Always false: an image brings its own plugins")
    image_info_list: list[ImageInfo] = Field(description="The images, by priority")
    total_size: int = Field(description="How many there are in all")


class NodeStep(_Css):
    """CurrentNodeDetail: one of the 13 sub-steps of a node."""

    order: int = Field(description="0 to 12")
    name: str = Field(description="`Data migration` (0) to `Task status update` (12)")
    status: Literal["WAITING", "RUNNING", "SUCCESS", "FAILED"] = Field(description="State of the sub-step")
    desc: str = Field(description="What it does, or what it did; for a failed one also the evidence")
    begin_time: str = Field(description="UTC, `2023-01-05T02:23:42`; empty before it begins")
    end_time: str = Field(description="UTC; empty before it ends")


class UpgradeDetailInfo(_Css):
    """GetUpgradeDetailInfo: one task with the sub-steps of the node being upgraded."""

    id: str = Field(description="Task ID; the `action_id` of a retry")
    start_time: str = Field(description="Start time of the upgrade, UTC")
    end_time: str = Field(description="End time of the upgrade, UTC; empty while it runs")
    status: Literal["RUNNING", "SUCCESS", "FAILED", "PARTIAL_FAILED"] = Field(description="Task status")
    agency_name: str = Field(description="Agency name, as the request gave it")
    image_info: ImageInfo | None = Field(default=None, description="The target image; absent for a change of zones")
    total_nodes: str = Field(description="Names of the nodes to be upgraded, joined by commas, in plan order")
    completed_nodes: str = Field(description="Names of the nodes that have been upgraded")
    current_node_name: str = Field(description="Names of the nodes that are being upgraded, or where it failed")
    execute_times: str = Field(description="How often it was run: 1, and one more for each retry")
    migrate_param: str = Field(default="", description="JSON in a string; only for a change of zones")
    final_az_info_map: str = Field(default="", description="JSON in a string; only for a change of zones")
    current_node_detail: list[NodeStep] = Field(description="The 13 sub-steps of the node being upgraded")
    batch_size: int = Field(description="How many nodes are upgraded at the same time")
    current_batch_nodes: str = Field(description="Names of the nodes of the running batch")
    fail_message: str = Field(default="", description="Why it failed; only for a failed task")


class UpgradeDetailPage(_Css):
    """Tasks of a cluster, newest first."""

    total_size: int = Field(description="How many tasks of the asked kind there are")
    detail_list: list[UpgradeDetailInfo] = Field(description="The tasks of this page")


class Datastore(_Css):
    """What a cluster runs."""

    type: str = Field(description="Engine: elasticsearch or opensearch")
    version: str = Field(description="Engine version", examples=["2.19.4"])
    sub_version: str = Field(description="Display name of the image", examples=["2.19.4_1.0.0_1105"])


class Volume(_Css):
    """The disk of a node."""

    type: str = Field(description="LOCAL")
    size: int = Field(description="Size of the file system that holds the node's data, GiB; 0 when unknown")


class Instance(_Css):
    """One node."""

    id: str = Field(description="Node id; stays through an upgrade")
    name: str = Field(description="Node name; stays through an upgrade", examples=["css-test-ess-esn-1-1"])
    type: str = Field(description="ess, ess-cold, ess-client or ess-master")
    status: str = Field(description="200 available, 100 being created, 303 unavailable")
    az_code: str = Field(description="Zone")
    ip: str = Field(description="Address; stays through an upgrade")
    spec_code: str = Field(description="What the node is made like")
    volume: Volume = Field(description="Its disk")


class FailedReason(_Css):
    """Why a cluster is not available."""

    error_code: str = Field(description="CSS.xxxx")
    error_msg: str = Field(description="What went wrong")


class ClusterDetail(_Css):
    """A cluster. It is idle when `actions` is empty and `actionProgress` is `{}`."""

    id: str = Field(description="Cluster ID")
    name: str = Field(description="Cluster name")
    status: str = Field(description="200 available, 100 being created, 303 unavailable")
    actions: list[str] = Field(description="What is being done: UPGRADING, AZ_MIGRATION, REPLACING or REBOOTING")
    action_progress: dict[str, str] = Field(description="How far it is", examples=[{"UPGRADING": "33%"}])
    failed_reason: FailedReason | None = Field(description="Why it is not available, else null")
    datastore: Datastore = Field(description="Engine, version and image")
    instances: list[Instance] = Field(description="The nodes")
    endpoint: str = Field(description="host:port of each node's REST API, joined by commas")
    created: str = Field(description="When it was created, UTC")
    updated: str = Field(description="When it last changed, UTC")
    https_enable: bool = Field(description="Whether its REST API speaks HTTPS")
    authority_enable: bool = Field(description="Whether its REST API asks for a user")
    disk_encrypted: bool = Field(description="Whether its disks are encrypted")
    backup_available: bool = Field(description="Whether automatic snapshots are on")


class ClusterList(_Css):
    """The caller's clusters."""

    total_size: int = Field(description="How many there are in all")
    clusters: list[ClusterDetail] = Field(description="Those of this page")


def _truth(value: object) -> object:
    """JSON booleans, and the strings `true` and `false` that some clients send; nothing else is guessed at."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


Truth = Annotated[bool, BeforeValidator(_truth, json_schema_input_type=bool)]


class UpgradeCoreBody(BaseModel):
    """What an upgrade is asked for with. Unknown keys are ignored."""

    target_image_id: str = Field(
        pattern=IMAGE_REF, description="Id of the image to go to, as the list of target images shows it"
    )
    upgrade_type: Literal["same", "cross", "cross-engine", "crossEngine"] = Field(
        description="same: same engine and version line; cross: same engine, higher version; cross-engine: from "
        "Elasticsearch to OpenSearch"
    )
    indices_backup_check: Truth = Field(
        default=True, description="Refuse unless every index is in a successful snapshot"
    )
    agency: str = Field(
        default="", description="Agency name: letters, digits, _ and -, 64 at most; one of the project's, if it has any"
    )
    cluster_load_check: Truth = Field(
        default=False,
        validation_alias=AliasChoices("cluster_load_check", "check_load"),
        description="Refuse while the nodes are under load. Older clients call it `check_load`.",
    )
    batch_size: int = Field(default=1, ge=1, le=1000, strict=True, description="Nodes taken at the same time")


class AzMigrateBody(BaseModel):
    """What a change of zones is asked for with. Unknown keys are ignored."""

    source_az: str = Field(min_length=1, max_length=1024, description="Zone that the nodes are in")
    target_az: str = Field(
        min_length=1,
        max_length=1024,
        description="Zone to go to; for multi_az_change all zones to be in, joined by commas",
    )
    migrate_type: Literal["az_migrate", "multi_az_change"] = Field(
        description="az_migrate: from one zone to another; multi_az_change: dealt evenly over several zones"
    )
    agency: str = Field(default="", description="Agency name: letters, digits, _ and -, 64 at most; told back only")
    indices_backup_check: Truth = Field(
        default=True, description="Refuse unless every index is in a successful snapshot"
    )


class RestartBody(BaseModel):
    """Which nodes are restarted. Without a body: all."""

    type: Literal["role", "node", "az"] = Field(default="role", description="What `value` names")
    value: str = Field(
        default="all",
        min_length=1,
        max_length=8192,
        description="Node types (`all` for every node), node ids or names, or zones, joined by commas",
    )


class RetryBody(BaseModel):
    """What some clients send instead of the query parameter."""

    retry_mode: Literal["abort"] | None = Field(default=None, description="abort: end the task instead of retrying it")
