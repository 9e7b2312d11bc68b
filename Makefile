# `make help` is the manual.
SHELL := /bin/bash
.DEFAULT_GOAL := help
python := .venv/bin/python
buf := node_modules/.bin/buf
GOLDEN ?= ../shared/golden

.PHONY: chaos e2e-rig e2e-kind help setup setup-vllm demo up down test test-vllm e2e golden bench bench-turns bench-turns-pipecat eval-pocket pocket-weights lint format types proto buf-lint buf-breaking images helm-schema helm-test clean

help: ## Show this list
	@grep -hE '^[a-z][a-zA-Z0-9_-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## Make .venv with everything pinned (every other target does it by itself)
	@scripts/setup.sh

setup-vllm: ## Make .venv-vllm, the language models on vLLM (CPU): 3 GB
	@scripts/setup-vllm.sh

demo: setup ## Ask three recorded questions of all six services on this machine, write demo-output/conversation.wav
	@scripts/demo.sh

up: setup ## Start the constellation on this machine and leave it running
	@.venv/bin/parley up

down: ## Stop it
	@.venv/bin/parley down

test: setup ## Unit, contract, golden and end-to-end tests on this machine
	@scripts/test.sh

test-vllm: setup setup-vllm ## The engine contract, the language model services and the constellation on vLLM (CPU)
	@scripts/test-vllm.sh

e2e: setup ## End-to-end tests alone, against real processes
	@$(python) -m pytest e2e-tests

chaos: setup ## Faults against real processes; what they leave behind, as a table in docs/reliability.md
	@$(python) -m pytest e2e-tests/chaos -m chaos -s --chaos-page docs/reliability.md $(CHAOS)

e2e-rig: setup ## The same on a real Kubernetes that is made of this machine (Debian 12, root) and taken away again
	@scripts/e2e-rig.sh

e2e-kind: setup ## The same on a kind cluster
	@scripts/e2e-kind.sh

golden: setup ## Compare with the reference implementation: make golden GOLDEN=PATH
	@if [ -e "$(GOLDEN)" ]; then set -- "$(GOLDEN)"; else set -- $(GOLDEN); fi; $(python) -m parley_evals.golden "$$@"

bench: setup ## Performance ratios, each printed with its environment
	@$(python) -m parley_evals.bench

eval-pocket: setup ## Measure the pocket weights through running services: make eval-pocket ARGS="--questions 60 --seed 7"
	@scripts/eval-pocket.sh $(ARGS)

pocket-weights: setup ## Train the pocket weights, many hours on two cores: make pocket-weights WEIGHTS=FOLDER [WORK=FOLDER]
	@test -n "$(WEIGHTS)" || { echo "pocket-weights: name the folder that gets them, WEIGHTS=FOLDER" >&2; exit 2; }
	@training/pocket/build.sh "$(or $(WORK),/tmp/pocket)" "$(WEIGHTS)"

bench-turns-pipecat: setup ## The same users on the gateway and on Pipecat, which gets .venv-pipecat (1 GB)
	@scripts/bench-turns-pipecat.sh

bench-turns: setup ## Latency, conversations held, barge-in, gap and speculation on simulated stages
	@$(python) -m parley_evals.bench_turns

lint: setup buf-lint ## ruff, mypy, buf lint
	@$(python) -m ruff check . && $(python) -m ruff format --check .
	@scripts/types.sh

format: setup ## Format everything
	@$(python) -m ruff check --fix . ; $(python) -m ruff format .

types: setup ## mypy alone
	@scripts/types.sh

proto: setup ## Regenerate libs/parley-protos from protos/
	@scripts/proto.sh

$(buf): package.json
	@command -v npm >/dev/null || { echo "buf comes from npm: install Node.js 20 and npm first" >&2; exit 1; }
	@npm install --no-package-lock --no-audit --no-fund --silent && touch $@

buf-lint: $(buf) ## Lint the contracts
	@cd protos && ../$(buf) lint && ../$(buf) format --diff --exit-code

buf-breaking: $(buf) ## Fail when the contracts break callers of AGAINST (default: main)
	@cd protos && ../$(buf) breaking --against "../.git#branch=$(or $(AGAINST),main),subdir=protos"

images: ## Build the container images with docker, podman or buildah; scripts/images.sh tells the options
	@scripts/images.sh

helm-schema: setup ## Make the chart's schema of the services' settings, and its dashboards
	@$(python) helm/values_schema.py && $(python) helm/make_dashboard.py

helm-test: setup ## Test the chart and the images' recipes; no cluster is needed
	@scripts/helm-test.sh

clean: ## Stop what runs here; remove .venv, local state, demo output
	@[ ! -x .venv/bin/parley ] || .venv/bin/parley down || true
	@rm -rf .venv .venv-vllm .venv-pipecat .parley demo-output node_modules
