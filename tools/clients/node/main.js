// Leads a cluster through an upgrade that fails once, and one that is aborted, with the unmodified core of the Node SDK:
// it signs, sends and reads errors. The requests are those that its CSS client describes, which is in no registry.
//
// Reads CSS_URL, CSS_PROJECT_ID, CSS_AK, CSS_SK and CSS_CLUSTER_ID. The emulator must have been told to let the first
// upgrade fail once; `make check-clients` does that.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { BasicCredentials } from "@huaweicloud/huaweicloud-sdk-core";
import { ClientBuilder } from "@huaweicloud/huaweicloud-sdk-core/ClientBuilder.js";
const { CSS_URL, CSS_PROJECT_ID, CSS_AK, CSS_SK, CSS_CLUSTER_ID } = process.env;
const AGENCY = "css_node_agency";
const LIMIT_MS = 60_000;
const ASK_EVERY_MS = 100;

class Css {
  constructor(sk = CSS_SK) {
    const credential = new BasicCredentials().withAk(CSS_AK).withSk(sk).withProjectId(CSS_PROJECT_ID);
    this.client = new ClientBuilder((client) => client).withEndpoint(CSS_URL).withCredential(credential).build();
  }

  send(method, path, { query = {}, body } = {}) {
    return this.client.sendRequest({
      method,
      url: `/v1.0/{project_id}/clusters/{cluster_id}${path}`,
      contentType: "application/json",
      queryParams: query,
      pathParams: { project_id: CSS_PROJECT_ID, cluster_id: CSS_CLUSTER_ID },
      headers: {},
      data: body,
    });
  }

  images(kind) {
    return this.send("GET", `/target/${kind}/images`);
  }

  details(query = {}) {
    return this.send("GET", "/upgrade/detail", { query });
  }

  retry(id, mode) {
    return this.send("PUT", `/upgrade/${id}/retry`, { query: mode ? { retry_mode: mode } : {} });
  }

  async newest() {
    return (await this.details()).detailList[0];
  }

  async upgrade(kind) {
    const { imageInfoList } = await this.images(kind);
    const body = {
      target_image_id: imageInfoList[0].id,
      upgrade_type: kind,
      indices_backup_check: false,
      agency: AGENCY,
    };
    const answer = await this.send("POST", "/inst-type/all/image/upgrade", { body });
    assert.equal(answer.httpStatusCode, 200);
    const task = await this.newest();
    assert.deepEqual([task.status, task.agencyName], ["RUNNING", AGENCY]);
    assert.deepEqual(task.currentNodeDetail.map((step) => step.order), [...Array(13).keys()]);
    return task;
  }

  async ended() {
    for (const until = Date.now() + LIMIT_MS; Date.now() < until; await pause(ASK_EVERY_MS)) {
      const task = await this.newest();
      if (task.status !== "RUNNING") return task;
    }
    throw new Error(`the task still runs after ${LIMIT_MS / 1000} s`);
  }

  async isIdle() {
    const { status, actions, actionProgress, instances } = await this.send("GET", "");
    assert.ok(instances.every((node) => node.status === "200"));
    return status === "200" && actions.length === 0 && Object.keys(actionProgress).length === 0;
  }
}

async function refused(call, status, code) {
  await assert.rejects(call, (error) => {
    assert.deepEqual([error.httpStatusCode, error.errorCode], [status, code]);
    assert.ok(error.requestId);
    return true;
  });
}

const css = new Css();
assert.ok(await css.isIdle());

const begun = await css.upgrade("same");
const failed = await css.ended();
assert.deepEqual([failed.id, failed.status], [begun.id, "FAILED"]);
await css.retry(failed.id);
const done = await css.ended();
assert.deepEqual([done.id, done.status, done.executeTimes], [begun.id, "SUCCESS", "2"]);
assert.equal(done.completedNodes, done.totalNodes);
assert.ok(await css.isIdle());
const step = failed.currentNodeDetail.find((one) => one.status === "FAILED");
console.log(`an upgrade failed at ${step.order}, ${step.name}, and succeeded when retried`);

const running = await css.upgrade("cross");
await css.retry(running.id, "abort");
const aborted = await css.ended();
assert.match(aborted.status, /FAILED$/);
console.log(`another one was aborted and is ${aborted.status}`);

// The SDK's own log tells of the refused calls, headers and all; these are the keys of an emulator that is about to end.
const past = await css.details({ offset: 1000 });
assert.deepEqual([past.totalSize, past.detailList], [2, []]);
await refused(() => css.details({ action_mode: "a b+c/d~ü&=%" }), 400, "CSS.0001");
await refused(() => css.retry("no-such-task"), 400, "CSS.0082");
await refused(() => new Css("wrong").details(), 401, "APIGW.0301");
console.log("errors are understood");
