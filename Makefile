# keepset's few commands. Tools and test servers that a target needs are put by itself into a cache outside the checkout
# ($XDG_CACHE_HOME/keepset, else ~/.cache/keepset); what is there is used, nothing there is relied on.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check bench sim soak memory e2e chart testbed-up testbed-down fmt

CARGO ?= cargo
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/keepset
export KEEPSET_CACHE := $(CACHE)
TARGET := $(abspath $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target))

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: ## back up a set of folders, wreck it, bring it back in order, prove every byte
	$(CARGO) run --quiet -- demo

test: ## all tests, with stock restic, a real MinIO and Azurite (set up by itself)
	tests/testbed/packages.sh
	minio="$$(tests/testbed/minio.sh)" && azurite="$$(tests/testbed/azurite.sh)" && \
		KEEPSET_TEST_MINIO="$$minio" KEEPSET_TEST_AZURITE="$$azurite" $(CARGO) test --locked

chart: ## the Helm chart, the manifests rendered from it, the alerts (the first time builds Helm and promtool for some minutes)
	tests/deploy/check.sh

e2e: chart ## the tests on a real Kubernetes, which comes up and goes by itself (as root; the first time builds for minutes; FILTER=name)
	tests/testbed/packages.sh
	tests/testbed/cluster/build-suite.sh "$(TARGET)"
	tests/testbed/cluster/run.sh tests/testbed/cluster/suite.sh "$(TARGET)" $(FILTER)

check: ## format, lints, docs, floor plan, dependencies, spelling
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked --test floors
	tests/testbed/tools.sh

bench: ## keepset beside restic, borg and bupstash (RUSTIC=1: and rustic), in turn, on files and on MinIO (long; ARGS="--help")
	benches/run.py $(ARGS)

sim: ## 20000 simulated lives of a repository, and a whole year of hourly backups (SEEDS=n, START=n; a seed that fails is made small and printed)
	KEEPSET_SIM_SEEDS=$${SEEDS:-20000} KEEPSET_SIM_START=$${START:-0} KEEPSET_SIM_HOURS=1 $(CARGO) test --locked --test sim -- --nocapture

soak: ## 300 random cycles of backup, kill, forget, prune and restore (CYCLES=n, SEED=n; a failure prints its seed)
	tests/testbed/packages.sh
	KEEPSET_SOAK_CYCLES=$${CYCLES:-300} KEEPSET_SOAK_ORACLE=1 KEEPSET_SOAK_SEED=$${SEED:-$$RANDOM$$RANDOM} $(CARGO) test --locked --test soak -- --nocapture

memory: ## a million files and 20 GB of holes under a limit of 128 MiB (minutes, 10 GB of disk; ARGS="--help")
	$(CARGO) build --locked --release
	benches/memory.py $(ARGS)

testbed-up: ## a real Kubernetes of one node with CSI snapshots and MinIO, in namespaces of its own (as root; the first time builds for minutes)
	tests/testbed/cluster/up.sh

testbed-down: ## end it and check that nothing is left
	tests/testbed/cluster/down.sh

fmt: ## format the sources
	$(CARGO) fmt --all
