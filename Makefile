# Everything a developer needs, one command each: `make help` lists them. A fresh clone needs
# Python 3.10 or newer and make, nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What an editable install is made of: a change in one of these installs again.
INSTALL_INPUTS := pyproject.toml constraints.txt hatch_build.py scripts/generate_stubs.py \
	$(shell find proto -name '*.proto')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the commands
	@echo "Usage: make COMMAND"
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' \
		| awk -F'|' '{ printf "%-16s%s\n", $$1, $$2 }'
	@echo "Another Python, in an environment of its own: make test PYTHON=python3.12 VENV=.venv-3.12"

# --- Installing ------------------------------------------------------------------------------

.PHONY: install
install: $(INSTALLED) ## Install the project and everything it is developed with into .venv

$(INSTALLED): $(INSTALL_INPUTS)
	@$(PYTHON) scripts/check_python.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV)"; \
		$(PYTHON) -m venv $$(test ! -f $(VENV)/pyvenv.cfg || echo --clear) $(VENV); }
	@echo "Installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: stubs
stubs: $(INSTALLED) ## Generate src/remsvc_proto again, after a change in proto/
	$(BIN)/python scripts/generate_stubs.py

.PHONY: constraints
constraints: $(INSTALLED) ## Pin the newest versions of everything in constraints.txt
	$(BIN)/python scripts/compile_constraints.py

# --- Trying ----------------------------------------------------------------------------------

.PHONY: demo
demo: $(INSTALLED) ## Run an example DAG in a real Airflow against a real server (KEEP=1: leave it running)
	@$(BIN)/python scripts/demo.py $(if $(filter-out 0 no false,$(KEEP)),--keep)

# --- Measuring -------------------------------------------------------------------------------

BENCH_VENV ?= .venv-bench
BENCH_INSTALLED := $(BENCH_VENV)/.installed

$(BENCH_INSTALLED): $(INSTALL_INPUTS)
	@$(PYTHON) scripts/check_python.py
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "Installing into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

.PHONY: bench
bench: $(BENCH_INSTALLED) ## Measure everything beside a reference, fifteen minutes (QUICK=1: two; FULL=1: half an hour; some: ARGS="--only commands")
	@scripts/debian_package.sh openssh-server sshd ssh "what is compared with OpenSSH is left out"
	@$(BENCH_VENV)/bin/python -m benchmarks $(if $(filter-out 0 no false,$(QUICK)),--quick) \
		$(if $(filter-out 0 no false,$(FULL)),--full) $(ARGS)

# --- Checking --------------------------------------------------------------------------------

# Tests of modules alone: no server is started, no disk filled, nothing waited for. tests/test_unit_tests.py names
# a file that is of this kind and stands in none of these.
UNIT_TESTS := tests/test_*.py tests/http2 tests/benchmarks \
	tests/client/test_*spec*.py tests/client/test_metadata.py tests/client/test_target.py tests/client/test_http_answers.py \
	tests/client/test_public_names.py tests/client/http2/test_session.py tests/execution/jobs/test_fair_queue.py tests/execution/test_shell.py \
	$(addprefix tests/execution/supervisor/test_,frames.py output_file.py process_tree.py protocol.py) \
	tests/server/bounds tests/server/calls/test_longest_requests.py tests/server/calls/test_statuses.py \
	tests/server/audit/test_audit_file.py tests/server/http2 tests/server/identity/test_auth_config.py \
	tests/server/jobs tests/server/policy/test_decisions.py tests/server/policy/test_patterns.py \
	tests/server/policy/test_policy_config.py tests/server/policy/test_programs.py \
	tests/server/policy/test_variables.py tests/server/settings \
	tests/server/test_configuration_page.py tests/server/test_logs.py tests/server/tls

.PHONY: unit
unit: $(INSTALLED) ## Run the tests of modules alone, half a minute
	$(BIN)/python -m pytest -q $(UNIT_TESTS)

# The tests wait more than they work, so their parts run side by side, each with a log of its own: the longest first.
PARTS := end-to-end provider provider-jobs attacks clients server grpc cli contract execution demo
PARTS_AT_ONCE := 5

FAULT_TESTS := tests/faults $(wildcard tests/end_to_end/test_jobs_*.py) tests/end_to_end/test_celery.py
# What a server promises has to hold on both of its transports. The rest does not know which one it is: handlers,
# policy and jobs are called alike by both, and clients have tests on both of theirs.
ON_BOTH_TRANSPORTS := tests/contract tests/server/identity tests/server/test_life_cycle.py \
	tests/attacks/test_limits.py tests/attacks/test_fuzz_grpc.py tests/attacks/test_tls_floor.py
# Of these only what reads files and flags, or decides behind the handlers, which both transports call alike.
ON_ONE_TRANSPORT := $(addprefix tests/contract/test_,configuration.py configuration_mistakes.py flags.py policy.py users.py) \
	$(addprefix tests/server/identity/test_,auth_config.py broken_files.py revoked_starts.py token_file.py)

TESTS_OF_end-to-end := tests/end_to_end $(addprefix --deselect=,$(FAULT_TESTS))
TESTS_OF_demo := tests/demo
PROVIDER_JOB_TESTS := $(wildcard $(addprefix tests/airflow/test_,job_*.py log_*.py durable.py dag_runs.py))
TESTS_OF_provider-jobs := $(PROVIDER_JOB_TESTS)
TESTS_OF_provider := tests/airflow $(addprefix --ignore=,$(PROVIDER_JOB_TESTS))
TESTS_OF_clients := tests/client
TESTS_OF_cli := tests/cli
TESTS_OF_execution := tests/execution
TESTS_OF_contract := tests/contract
TESTS_OF_attacks := tests/attacks
TESTS_OF_grpc := --transport grpc $(addprefix --ignore=,$(ON_ONE_TRANSPORT)) $(ON_BOTH_TRANSPORTS)
# Whatever belongs to no other part, so that no test is forgotten.
TESTS_OF_server := tests $(addprefix --ignore=,tests/faults $(foreach part,$(filter-out grpc server,$(PARTS)),\
	$(firstword $(TESTS_OF_$(part)))))

.PHONY: test
test: $(INSTALLED) ## Run all tests but the next two commands' (some of them: make test ARGS=tests/server)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@mkdir -p build
	@$(MAKE) --no-print-directory --keep-going -j $(PARTS_AT_ONCE) $(addprefix test-of-,$(PARTS)); status=$$?; \
		cat $(patsubst %,build/test-%.log,$(PARTS)); \
		grep -hE '^(FAILED|ERROR) ' $(patsubst %,build/test-%.log,$(PARTS)); exit $$status
endif

.PHONY: $(addprefix test-of-,$(PARTS))
$(addprefix test-of-,$(PARTS)): test-of-%: $(INSTALLED)
	@echo "$*: running, see build/test-$*.log"
	@$(BIN)/python -m pytest -o cache_dir=build/cache-$* --durations=20 $(TESTS_OF_$*) > build/test-$*.log 2>&1; \
		status=$$?; echo "$*: $$(tail -n 1 build/test-$*.log)"; exit $$status

.PHONY: test-faults
test-faults: $(INSTALLED) ## Kill servers, triggerers and workers, fill disks, cut networks (longer: REMSVC_FAULT_ROUNDS=200)
	@scripts/debian_package.sh redis-server redis-server redis-server "tests with CeleryExecutor are skipped"
	$(BIN)/python -m pytest $(or $(ARGS),$(FAULT_TESTS))

.PHONY: faults
faults: $(INSTALLED) ## Kill, fill and break things for half an hour (ROUNDS=20: less)
	REMSVC_FAULT_ROUNDS=$(or $(ROUNDS),200) $(BIN)/python -m pytest -s $(or $(ARGS),tests/faults tests/execution/jobs/test_job_crashes.py)

.PHONY: fuzz
fuzz: $(INSTALLED) ## Attack and fuzz for long (EXAMPLES=1000 SECONDS=3: less)
	REMSVC_FUZZ_EXAMPLES=$(or $(EXAMPLES),50000) REMSVC_FUZZ_SECONDS=$(or $(SECONDS),20) \
		$(BIN)/python -m pytest --timeout 7200 $(or $(ARGS),tests/attacks)

SANITIZED := .venv-sanitized

.PHONY: soak
soak: $(INSTALLED) ## Fuzz connections, and the HTTP/2 engine with sanitizers, for an hour (SECONDS=60: less)
	PYTHON=$(BIN)/python scripts/sanitized_ngh2.sh $(SANITIZED)
	@seconds=$(or $(SECONDS),3600); \
	$(BIN)/python -m tests.soak.fuzz_connection --seconds $$seconds $(ARGS) & connections=$$!; \
	PYTHONPATH=src:. $(SANITIZED)/bin/sanitized-python -m tests.soak.fuzz_engine --seconds $$seconds $(ARGS); \
	engine=$$?; wait $$connections && exit $$engine

.PHONY: foreign
foreign: $(INSTALLED) ## Test the server with curl, nghttp, h2load, grpc-js, the oldest and the newest grpcio
	REMSVC_FOREIGN=1 $(BIN)/python -m pytest -m foreign $(or $(ARGS),tests/attacks)

.PHONY: test-windows
test-windows: $(INSTALLED) ## Test the Windows side in a Windows Python under Wine
	scripts/windows_python.sh
	$(BIN)/python -m pytest -m windows $(or $(ARGS),tests/windows)

.PHONY: lint
lint: $(INSTALLED) ## Lint, check the format, the types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint unit ## What every commit has to pass: lint, and the tests of modules

.PHONY: format
format: $(INSTALLED) ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: costs
costs: $(INSTALLED) ## Record anew what operations cost, with every Python (some: ARGS="-p 3.13")
	$(BIN)/nox -s costs $(ARGS)

.PHONY: matrix
matrix: $(INSTALLED) ## Test one wheel on every Python, Airflow, grpcio and protobuf (some: ARGS="-s wheel")
	$(BIN)/nox $(ARGS)

# --- Publishing ------------------------------------------------------------------------------

.PHONY: build
build: $(INSTALLED) ## Build the sdist, and from it the wheel, into dist/
	PIP_CONSTRAINT=constraints-build.txt $(BIN)/python -m build

.PHONY: sbom
sbom: build ## Write the software bill of materials (CycloneDX) beside the wheel
	$(BIN)/python scripts/make_sbom.py --wheel "$$(ls -t dist/*.whl | head -n 1)" > dist/sbom.cdx.json

.PHONY: audit
audit: $(INSTALLED) ## Look the pinned versions up among the known vulnerabilities (needs PyPI's advisories)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: clean
clean: ## Remove what was built, and caches
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . \( -name .venv -o -name '.venv-*' -o -name .nox -o -name .git \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the environments as well
	rm -rf .venv .venv-* .nox
