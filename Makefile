# Shardlift's commands. `make help` lists them; each works from a fresh checkout, as root and as an ordinary user.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-moves test-hops check serve sim bench-upgrade bench-moves bench-api bench-check bench-emulator check-clients lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-22s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## build .venv with everything pinned, and .venv/bin/shardlift

$(STAMP): requirements/dev.txt pyproject.toml tools/setup
	@tools/setup $(VENV)
	@touch $(STAMP)

demo: $(STAMP) ## upgrade a real three-node cluster under load, and prove that nothing was lost (ARGS="--strategy in_place")
	@echo "== demo: a real cluster on 127.x addresses, loaded, upgraded, checked, removed"
	@$(BIN)/shardlift demo $(ARGS)

test: $(STAMP) ## all tests, those with real engine nodes too
	@echo "== test: first those without engines, on all cores"
	@$(BIN)/python -m pytest -m "not engine and not moves and not hops" -n auto $(ARGS)
	@echo "== test: those with real engine nodes, one after the other; the first run fetches the engine archives"
	@$(BIN)/python -m pytest -m engine --durations=12 $(ARGS)

test-unit: $(STAMP) ## the quick tests: no engines, no processes, few whole simulated tasks
	@echo "== test-unit: everything but the tests marked 'engine', 'moves', 'hops', 'sim', 'walks' and 'fuzz'"
	@$(BIN)/python -m pytest -m "not engine and not moves and not hops and not sim and not walks and not fuzz" -n auto $(ARGS)

test-moves: $(STAMP) ## zones, replacement, masters, batches and HAProxy on real nodes, under a probing client (ARGS="-k haproxy")
	@echo "== test-moves: real nodes, up to six at once; HAProxy is Debian's package haproxy"
	@$(BIN)/python -m pytest -m moves -n 0 $(ARGS)

test-hops: $(STAMP) ## each hop between engines and releases on real nodes, and Elasticsearch 6.8 to OpenSearch 3.4 on one cluster
	@echo "== test-hops: three real nodes, hop by hop; the first run fetches the engine archives"
	@$(BIN)/python -m pytest -m hops -n 0 $(ARGS)

check: $(STAMP) ## format, lint, types, layers, what may be committed
	@echo "== check: format"
	@$(BIN)/ruff format --check
	@echo "== check: lint"
	@$(BIN)/ruff check
	@echo "== check: types"
	@$(BIN)/mypy
	@echo "== check: layers"
	@$(BIN)/lint-imports --no-cache --no-logo
	@echo "== check: tracked files"
	@$(BIN)/python tools/check_tree.py

serve: $(STAMP) ## the API and the runner, in the foreground
	@$(BIN)/shardlift serve $(ARGS)

sim: $(STAMP) ## simulated upgrades under faults (SEEDS=2000, or SEED=17 to repeat one with its transcript)
	@$(BIN)/python -m shardlift.chaos $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),200)) $(ARGS)

check-clients: $(STAMP) ## the Go and Node SDKs against an emulator; needs Go and Node.js, fetches the SDKs (ARGS=go)
	@PATH="$$PATH:/usr/local/go/bin" $(BIN)/python tools/check_clients.py $(ARGS)

bench-upgrade: $(STAMP) ## wall time and bytes beside a plain script of the documented procedure
	@echo "== bench-upgrade: both strategies, Shardlift and a plain script, same cluster and load"
	@$(BIN)/python tools/bench_upgrade.py $(ARGS)

bench-moves: $(STAMP) ## bytes copied by strategy beside the data, simulated and real (ARGS="--simulated 10 --real 3")
	@echo "== bench-moves: each strategy and a plain script, on simulated and on real nodes"
	@$(BIN)/python tools/bench_moves.py $(ARGS)

bench-api: $(STAMP) ## polls of UpgradeDetail a second, from 10 to 100,000 tasks, beside a bare server and moto
	@echo "== bench-api: filling homes and starting servers first; moto comes into a venv of its own"
	@$(BIN)/python tools/bench_api.py $(ARGS)

bench-check: $(STAMP) ## time and memory of check without REST, for clusters of 10 to 1,000 nodes
	@echo "== bench-check: rules, plan and dry run, each size in a process of its own"
	@$(BIN)/python tools/bench_check.py $(ARGS)

bench-emulator: $(STAMP) ## 500 simulated upgrades at once, with faults, in one process (ARGS="--clusters 100")
	@echo "== bench-emulator: made, given faults, upgraded together, retried until all are SUCCESS"
	@$(BIN)/python tools/bench_emulator.py $(ARGS)

lock: $(STAMP) ## recompile requirements/*.txt from pyproject.toml
	@tools/lock

clean: ## remove .venv and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
