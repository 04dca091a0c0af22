"""The command line: what goes to stdout and stderr, and what it ends with."""

from __future__ import annotations

import json
import stat

import pytest

from shardlift.cli.main import run
from shardlift.cli.session import Session
from shardlift.model import TaskStatus
from shardlift.settings import load_settings
from tests.unit.fake_service import FINDING, FakeService, a_cluster, a_task


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own; the environment is how a person names one."""
    monkeypatch.setenv("SHARDLIFT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def service(home):
    return FakeService(load_settings())


@pytest.fixture
def shardlift(service, capsys):
    """Runs a command; returns exit code, stdout (parsed when --json is asked for) and stderr."""

    def call(*arguments: str):
        code = run(arguments, Session(service.opened))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, json.loads(out) if "--json" in arguments else out, err

    return call


def test_version(shardlift):
    code, out, _ = shardlift("--version")
    assert code == 0
    assert out.startswith("shardlift 0.")


def test_cluster_create_deals_roles_and_zones_and_shows_the_nodes(shardlift, service):
    code, out, err = shardlift(
        *("cluster", "create", "books", "--image", "opensearch:3.4.0", "--roles", "data=4,master=3", "--zones", "a,b"),
        *("--strategy", "in_place", "--driver", "sim", "--json"),
    )
    assert code == 0
    request = service.asked[0]
    assert [(str(group.instance_type), group.count) for group in request.groups] == [("ess", 4), ("ess-master", 3)]
    assert request.zones == ("a", "b")
    assert request.strategy == "in_place"
    assert {"cluster_id", "project_id", "name", "status", "nodes"} <= out.keys()
    assert {"id", "name", "url", "zone", "roles", "version", "pid"} <= out["nodes"][0].keys()
    assert out["nodes"][0]["pid"] == 4711
    assert "booting 7 nodes" in err


def test_a_new_home_gets_its_first_project_with_the_first_cluster(shardlift, service, home):
    shardlift("cluster", "create", "books", "--image", "opensearch:3.4.0", "--driver", "sim")
    code, out, _ = shardlift("credentials", "--json")
    assert code == 0
    assert out["project_id"] == service.asked[0].project_id == "id-default"
    assert stat.S_IMODE((home / "credentials.toml").stat().st_mode) == 0o600


def test_without_credentials_there_is_a_way_to_get_them(shardlift):
    code, out, err = shardlift("credentials", "--json")
    assert code == 4
    assert out["error"] == "not_found"
    assert "remedy: start `shardlift serve` once" in err


def test_a_damaged_credentials_file_is_named(shardlift, home):
    (home / "credentials.toml").write_text("[default\n")
    code, _, err = shardlift("credentials")
    assert code == 2
    assert str(home / "credentials.toml") in err


def test_several_projects_without_a_profile_must_be_chosen_from(shardlift, service, home):
    shardlift("project", "create", "one")
    shardlift("project", "create", "two")
    (home / "credentials.toml").unlink()
    arguments = ("cluster", "create", "books", "--image", "opensearch:3.4.0", "--driver", "sim")
    code, _, err = shardlift(*arguments)
    assert code == 2
    assert "one, two" in err
    code, _, _ = shardlift(*arguments, "--project", "two")
    assert code == 0
    assert service.asked[-1].project_id == "id-two"


def test_only_the_first_projects_keys_are_kept(shardlift, home):
    _, first, _ = shardlift("project", "create", "one", "--json")
    _, _, err = shardlift("project", "create", "two")
    assert "note them now" in err
    assert first["sk"] in (home / "credentials.toml").read_text()
    _, out, _ = shardlift("project", "list", "--json")
    assert [project["name"] for project in out["projects"]] == ["one", "two"]


@pytest.mark.parametrize("roles", ["data", "data=x", "kings=3", "data=1,data=2", "", "data=-1"])
def test_unusable_roles_are_refused_by_name(shardlift, roles):
    code, _, err = shardlift("cluster", "create", "b", "--image", "opensearch:3.4.0", "--roles", roles)
    assert code == 2
    assert f"--roles: {roles}" in err
    assert "remedy: " in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("cluster", "show", "nothing"), 4),
        (("upgrade", "nothing", "--to", "opensearch:3.4.0"), 4),
        (("upgrade", "books", "--to", "opensearch:9.9.9"), 4),
        (("task", "show", "nothing"), 4),
        (("task", "watch", "nothing"), 4),
        (("task", "list", "nothing"), 4),
        (("upgrade", "books"), 2),
        (("upgrade", "books", "--to", "opensearch:3.4.0", "--strategy", "hope"), 2),
        (("upgrade", "books", "--to", "opensearch:3.4.0", "--batch-size", "0"), 2),
        (("task", "list", "books", "--limit", "0"), 2),
        (("cluster", "create", "books"), 2),
        (("nonsense",), 2),
        (("serve", "--port", "70000"), 2),
        (("image", "pull", "opensearch:0.0.1"), 4),
        (("image", "add", "/nowhere.zip"), 2),
    ],
)
def test_errors_end_with_their_code_and_one_document(shardlift, service, arguments, code):
    service.clusters_ = [a_cluster()]
    got, document, err = shardlift(*arguments, "--json")
    assert got == code
    assert document["message"]
    assert err.startswith("error: ")


def test_a_busy_cluster_is_not_deleted(shardlift, service):
    service.clusters_ = [a_cluster(busy_with="UPGRADING")]
    assert shardlift("cluster", "delete", "books")[0] == 5
    service.clusters_ = [a_cluster()]
    code, out, _ = shardlift("cluster", "delete", "books", "--json")
    assert (code, out["deleted"], service.clusters_) == (0, True, [])


def test_check_tells_findings_and_ends_with_three_when_one_blocks(shardlift, service):
    service.clusters_ = [a_cluster()]
    code, out, _ = shardlift("check", "books", "--to", "opensearch:3.4.0", "--json")
    assert (code, out["ok"], len(out["plan"]["batches"])) == (0, True, 2)
    service.findings = (FINDING,)
    code, out, _ = shardlift("check", "books", "--to", "opensearch:3.4.0", "--json")
    assert (code, out["ok"], out["findings"][0]["rule"]) == (3, False, "last_started_copy")
    code, text, _ = shardlift("check", "books", "--to", "opensearch:3.4.0")
    assert code == 3
    assert "add a replica" in text


def test_a_refused_upgrade_names_rule_evidence_and_remedy(shardlift, service):
    service.clusters_ = [a_cluster()]
    service.findings = (FINDING,)
    code, out, err = shardlift("upgrade", "books", "--to", "opensearch:3.4.0", "--json")
    assert code == 3
    assert out["findings"][0]["evidence"] == "1 of 1 STARTED"
    assert "last_started_copy" in err
    assert "remedy: " in err


def test_upgrade_says_that_the_task_waits_for_a_server(shardlift, service):
    service.clusters_ = [a_cluster()]
    arguments = ("upgrade", "books", "--to", "opensearch:3.4.0", "--strategy", "in_place", "--batch-size", "2")
    code, out, err = shardlift(*arguments, "--json")
    assert code == 0
    wanted = {"task_id", "status", "nodes_total", "nodes_completed", "bytes_moved", "eta_s", "blocked_by", "steps"}
    assert wanted <= out.keys()
    assert {"node", "order", "name", "status", "begin", "end", "desc"} <= out["steps"][0].keys()
    assert len(out["steps"]) == 26
    assert out["eta_s"] is None
    assert out["blocked_by"] == "7 shards"
    assert "waits until one is started" in err
    assert (service.asked[0].cluster_id, service.asked[0].batch_size) == ("c1", 2)


@pytest.mark.parametrize(
    ("end", "code"), [(TaskStatus.SUCCESS, 0), (TaskStatus.FAILED, 1), (TaskStatus.PARTIAL_FAILED, 1)]
)
def test_watch_follows_to_the_end(shardlift, service, end, code):
    service.task_ = a_task(done=0)
    service.waits = [a_task(done=3), a_task(done=13), a_task(end, done=26 if end is TaskStatus.SUCCESS else 15)]
    got, out, err = shardlift("task", "watch", "t1", "--json")
    assert got == code
    assert out["status"] == end
    assert "books-ess-esn-1-1:  0 Data migration: RUNNING, waits for 7 shards, 7 shards left" in err
    assert "books-ess-esn-1-1: 12 Task status update: SUCCESS, 1.0 s" in err
    assert err.count("12 Task status update: SUCCESS") == (2 if end is TaskStatus.SUCCESS else 1)
    assert f"task t1 {end}" in err


def test_a_failed_watch_says_what_to_do(shardlift, service):
    service.task_ = a_task(TaskStatus.FAILED, done=10)
    code, _, err = shardlift("task", "watch", "t1")
    assert code == 1
    assert "10 Node start: FAILED" in err
    assert "it did not start" in err
    assert "shardlift task retry t1" in err


def test_upgrade_with_watch_ends_as_the_task_does(shardlift, service):
    service.clusters_ = [a_cluster()]
    service.waits = [a_task(TaskStatus.SUCCESS, done=26)]
    assert shardlift("upgrade", "books", "--to", "opensearch:3.4.0", "--watch")[0] == 0


def test_ctrl_c_while_watching_leaves_the_task_alone(shardlift, service):
    def interrupt():
        raise KeyboardInterrupt

    service.fail = interrupt
    code, _, err = shardlift("task", "watch", "t1")
    assert code == 130
    assert "the task goes on in the server" in err


def test_ctrl_c_elsewhere_ends_cleanly(shardlift, service):
    def interrupt():
        raise KeyboardInterrupt

    service.fail = interrupt
    assert shardlift("cluster", "show", "books")[0] == 130


def test_the_unexpected_is_one_line_and_a_log(shardlift, service, home):
    def burst():
        raise ZeroDivisionError("a bug")

    service.fail = burst
    code, out, err = shardlift("cluster", "show", "books", "--json")
    assert code == 1
    assert str(home / "shardlift.log") in out["message"]
    assert err.startswith("error: unexpected ZeroDivisionError")
    assert "a bug" in (home / "shardlift.log").read_text()


def test_retry_and_abort(shardlift, service):
    service.task_ = a_task(TaskStatus.FAILED, done=10)
    assert shardlift("task", "retry", "t1", "--json")[1]["status"] == "RUNNING"
    assert shardlift("task", "abort", "t1", "--json")[1]["aborting"] is True
    assert service.asked == [("retry", "t1"), ("abort", "t1")]


def test_tables_say_what_the_documents_say(shardlift, service):
    service.clusters_ = [a_cluster()]
    assert "books" in shardlift("cluster", "list")[1]
    shown = shardlift("cluster", "show", "books")[1]
    assert "4711" in shown
    assert "no answer" in shown
    assert "t1" in shardlift("task", "list", "books")[1]
    assert "7 shards" in shardlift("task", "show", "t1")[1]
    code, out, err = shardlift("cluster", "list", "--project", "none")
    assert (code, out) == (4, "")
    assert "error: no project 'none'" in err


def test_a_bad_setting_is_named_with_its_value(shardlift, monkeypatch):
    monkeypatch.setenv("SHARDLIFT_PORT", "many")
    code, _, err = shardlift("cluster", "list")
    assert code == 2
    assert "SHARDLIFT_PORT: many" in err


def test_images_are_listed_without_a_service(shardlift):
    code, out, _ = shardlift("image", "list", "--json")
    assert code == 0
    assert {"opensearch:2.19.4", "opensearch:3.4.0"} <= {image["reference"] for image in out["images"]}
    assert not any(image["pulled"] for image in out["images"])


def test_a_traffic_hook_is_set_shown_and_taken_away_without_its_secrets(shardlift, service):
    service.clusters_.append(a_cluster())
    name = service.clusters_[0].name
    code, out, err = shardlift(
        *("cluster", "hook", name, "--url", "https://lb/hush", "--header", "X-Auth: hush", "--timeout", "3", "--json")
    )
    assert code == 0
    assert service.asked[-1].headers == (("X-Auth", "hush"),)
    assert out["traffic_hook"] == {
        "kind": "http", "url": "POST https://lb/...", "headers": ["X-Auth"], "types": ["ess", "ess-cold", "ess-client"],
        "timeout_s": 3, "in_flight_timeout_s": 60, "leftovers": "fail",
    }  # fmt: skip
    assert "hush" not in err
    code, out, _ = shardlift("cluster", "hook", name, "--haproxy", "/s", "--backend", "a", "--backend", "b")
    assert (code, service.asked[-1].backends) == (0, ("a", "b"))
    assert "a, b" in out
    shardlift("cluster", "hook", name, "--command", "/bin/lb 'a b' {action} {node}")
    assert service.asked[-1].argv == ("/bin/lb", "a b", "{action}", "{node}")
    code, _, err = shardlift("cluster", "hook", name, "--none")
    assert (code, service.asked[-1]) == (0, None)
    assert "still out of the balancer: node-2; put them back by hand" in err
    assert "has no traffic hook" in shardlift("cluster", "hook", name)[2]


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "http://h/", "--none"),
        ("--backend", "b"),
        ("--haproxy", "/s", "--header", "A: b"),
        ("--command", "'"),
        ("--url", "http://h/", "--header", "no colon"),
        ("--haproxy", "/s", "--backend", "b", "--types", "es"),
    ],
)
def test_a_traffic_hook_that_makes_no_sense_is_refused(shardlift, service, words):
    service.clusters_.append(a_cluster())
    code, _, err = shardlift("cluster", "hook", service.clusters_[0].name, *words)
    assert code == 2
    assert err
