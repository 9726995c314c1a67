# SPDX-License-Identifier: Apache-2.0
# Everything here works in .venv, which is made on first use and brought up to date when what it depends on changes.
# Python code is run from this checkout; only the generated messages are installed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# Another interpreter than the newest of Python 3.12, 3.11 and 3.10 on PATH: make PYTHON=/path/to/python3.10
PYTHON ?=
# Arguments for the programs: make demo DEMO_ARGS="--episodes 5", make test PYTEST_ARGS="-k sidecar"
DEMO_ARGS ?=
SERVE_ARGS ?=
# The ROS 2 whose wheels are used, a folder of requirements/ros/: each has an environment of its own.
ROS := jazzy
# Everything on Jazzy, what uses ROS on another one.
PYTEST_ARGS ?= $(if $(filter-out jazzy,$(ROS)),test/ros test/rqt test/demo test/packaging/test_packaging.py)
# ONNX Runtime for the processor, or for an NVIDIA GPU (make distclean before changing it): make build RUNTIME=gpu
RUNTIME ?= cpu
# Test processes at a time: faster also on two cores, as most tests wait for a robot or a server.
TEST_JOBS ?= 2
# The oldest Python that will do.
OLDEST := 3.10
# What needs no ROS, no browser and no program besides Python.
FAST_TESTS := test/client test/core test/exporting test/http

# `demo`, the embedded policy, unless the arguments name an export or a file that may.
SERVED = $(if $(filter --export-dir% --policy-a% --config% --ros-args,$(SERVE_ARGS))$(filter-out -%,$(firstword $(SERVE_ARGS))),,demo)

export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
# Set by the start-up hook of the ROS wheels; inherited from another environment it would switch ours off.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

# Jazzy's environment is the one that README names.
VENV := .venv$(if $(filter-out jazzy,$(ROS)),-$(ROS))
RUN := $(VENV)/bin/python
PIP := env PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off $(RUN) -m pip --disable-pip-version-check --no-input
SYSTEM := requirements/system.sh
# Shows what a long command is doing while it does it; its output only when it fails.
STEP := requirements/step.sh
CONSTRAINTS := -c requirements/constraints.txt $(if $(ROS_DISTRO),,-c requirements/ros/$(ROS)/constraints.txt)
# One set of stamps per place, so that a checkout that was moved or copied is installed again.
STAMPS := $(VENV)/stamps$(subst /,-,$(CURDIR))
BUILD_FILES := setup.py pyproject.toml CMakeLists.txt package.xml msg srv action scripts $(wildcard msg/* srv/* action/* scripts/* requirements/*)
BUILD_FILES += $(wildcard requirements/ros/$(ROS)/*)
# With ROS 2 sourced, its own generators and its Python packages are used instead of the wheels.
BUILD_REQUIREMENTS := -r requirements/build.txt $(if $(ROS_DISTRO),,-r requirements/ros/$(ROS)/build.txt)
COMMA := ,
EXTRAS := $(RUNTIME),demo,openpi,$(if $(ROS_DISTRO),bag$(COMMA)opencv,ros$(if $(filter-out jazzy,$(ROS)),-$(ROS)))
# setup.py compiles the messages with these wheels; with nothing named, with the ROS that is sourced.
WITH_ROS := REFLEX_ROS=$(if $(ROS_DISTRO),,$(ROS))
VENV_ARGS := $(if $(ROS_DISTRO),--system-site-packages)

.PHONY: help
help: ## list the verbs
	@echo "usage: make VERB"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile
	@echo "PYTHON=/path/to/python3.10 picks the interpreter, ROS=kilted the ROS wheels; DEMO_ARGS, SERVE_ARGS and PYTEST_ARGS are passed on."

.PHONY: build
build: $(STAMPS)/build ## make .venv, install the dependencies, compile the messages
	@:

# Serving wants newer packages than LeRobot does: what makes exports has an environment of its own.
.PHONY: venv-export
venv-export: ## make .venv-export, which has torch and LeRobot beside what serves
	@$(MAKE) --no-print-directory ROS=jazzy VENV=.venv-export OLDEST=3.11 EXTRAS=cpu,cli,$(if $(ROS_DISTRO),bag$(COMMA)opencv,ros) \
	  CONSTRAINTS='-c .venv-export/constraints.txt $(if $(ROS_DISTRO),,-c requirements/ros/jazzy/constraints.txt)' install-export

.PHONY: install-export
install-export: $(STAMPS)/export
	@:

.PHONY: demo
demo: build $(STAMPS)/simulator ## run the embedded policy on the simulated arm over ROS topics
	@echo "starting the simulated robot and the policy"
	@$(RUN) -m reflex_ros.demo.run $(DEMO_ARGS)

.PHONY: serve
serve: build ## serve the embedded policy over ROS and HTTP
	@$(RUN) -m reflex_ros.cli.serve $(SERVED) $(SERVE_ARGS)

.PHONY: doctor
doctor: build ## check this machine
	@$(RUN) -m reflex_ros.cli.doctor demo

.PHONY: test
test: lint $(STAMPS)/simulator $(STAMPS)/browser $(STAMPS)/control_msgs ## lint, check the types, run the fast tests and then the others
ifeq ($(PYTEST_ARGS),)
	@$(MAKE) --no-print-directory test-fast
	@$(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile $(addprefix --ignore=,$(FAST_TESTS))
else
	@$(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)
endif

.PHONY: test-fast
test-fast: $(STAMPS)/test ## run the tests of the core and of HTTP, about a minute
	@$(RUN) -m pytest -n $(TEST_JOBS) --dist worksteal $(FAST_TESTS)

.PHONY: test-export
test-export: venv-export ## export small checkpoints of every family with LeRobot's own classes, serve them, compare
	@.venv-export/bin/python -m pytest -n $(TEST_JOBS) --dist loadfile -m export \
	  $(if $(filter test/%,$(PYTEST_ARGS)),,test/export) $(PYTEST_ARGS)

# Clients of other servers, as their users have them; openpi's wants an older numpy than vla-eval's.
CLIENTS := $(patsubst requirements/clients/%.txt,%,$(wildcard requirements/clients/*.txt))

.PHONY: test-clients
test-clients: $(STAMPS)/test $(STAMPS)/simulator $(CLIENTS:%=.venv-clients/%/stamp) ## let real clients of other servers drive the simulated arm through this one
	@$(RUN) -m pytest -m clients $(if $(filter test/%,$(PYTEST_ARGS)),,test/clients) $(PYTEST_ARGS)

.venv-clients/%/stamp: requirements/clients/%.txt | $(VENV)/pyvenv.cfg
	@rm -rf $(@D) && $(STEP) "making $(@D)" $(RUN) -m venv $(@D)
	@$(STEP) "installing the client $*" $(PIP:$(RUN)=$(@D)/bin/python) install -r $<
	@touch $@

.PHONY: test-all
test-all: ## run all there is: the slow tests (every Python, every machine of the support table), test-clients and test-export
	@$(MAKE) --no-print-directory test PYTEST_ARGS="-m '' $(PYTEST_ARGS)"
ifeq ($(PYTEST_ARGS),)
	@$(MAKE) --no-print-directory test-clients
	@$(MAKE) --no-print-directory test-export
endif

.PHONY: lint
lint: $(STAMPS)/test ## ruff and mypy
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m ruff format --check --quiet . || { echo "not formatted (make format):"; $(RUN) -m ruff format --check .; }
	@$(RUN) -m mypy --no-error-summary

.PHONY: format
format: $(STAMPS)/test ## format the Python code, apply the safe fixes of ruff
	@$(RUN) -m ruff check --quiet --fix-only .
	@$(RUN) -m ruff format --quiet .

.PHONY: wheel
wheel: build ## build three wheels into dist/: of pure Python, with the messages of ROS, and of the client
	@$(STEP) "building the wheel of pure Python" env REFLEX_ROS=none $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@$(STEP) "building the wheel with messages" env $(WITH_ROS) $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@$(STEP) "building the wheel of the client" $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist ./reflex_client

.PHONY: clean
clean: ## remove what was built; .venv stays
	@rm -rf build install log dist demo_out *.egg-info reflex_client/build reflex_client/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis $(VENV)/stamps*

.PHONY: distclean
distclean: clean ## remove .venv too
	@rm -rf .venv .venv-*

.PHONY: check-python
check-python:
ifneq ($(PYTHON),)
ifneq ($(wildcard $(VENV)/pyvenv.cfg),)
	@version='import sys; print("%d.%d" % sys.version_info[:2])'; \
	has=$$($(RUN) -c "$$version"); asked=$$($(PYTHON) -c "$$version") || asked="no Python"; \
	if [ "$$has" != "$$asked" ]; then \
	  echo "reflex_ros: $(VENV) was made with Python $$has and PYTHON=$(PYTHON) is $$asked; run \`make distclean\` first." >&2; \
	  exit 1; \
	fi
endif
endif

.PHONY: check-ros
check-ros:
ifeq ($(wildcard requirements/ros/$(ROS)),)
	@echo "reflex_ros: ROS=$(ROS) is not known; take one of: $(notdir $(wildcard requirements/ros/*))." >&2; exit 1
endif

# A half-made environment is removed: the next run would take it for a whole one.
$(VENV)/pyvenv.cfg: | check-ros check-python
	@echo "looking for a Python that fits and a compiler"
	@python=$$($(SYSTEM) python "$(PYTHON)" $(OLDEST)) && $(SYSTEM) build && \
	{ $(STEP) "making $(VENV) with $$($$python --version)" $$python -m venv $(VENV_ARGS) $(VENV) || { rm -rf $(VENV); exit 1; }; }

# The messages are compiled without build isolation: what that needs is kept in .venv, where tests can use it offline.
$(STAMPS)/build: $(BUILD_FILES) | $(VENV)/pyvenv.cfg
	@$(SYSTEM) build
	@$(STEP) "installing what compiles the messages" $(PIP) install --upgrade-strategy only-if-needed $(CONSTRAINTS) $(BUILD_REQUIREMENTS)
	@$(STEP) "installing the dependencies, compiling the messages (minutes the first time)" \
	  env $(WITH_ROS) $(PIP) install $(CONSTRAINTS) --no-build-isolation --editable '.[$(EXTRAS)]'
	@$(STEP) "compiling this checkout's Python code" $(RUN) -m compileall -q reflex_core reflex_ros
	@mkdir -p $(STAMPS) && touch $@
	@echo "$(VENV) is ready: $(VENV)/bin/reflex help"

.venv-export/constraints.txt: requirements/export.sh requirements/constraints.txt requirements/export/constraints.txt | $(VENV)/pyvenv.cfg
	@requirements/export.sh constraints >$@

.venv-export/stamps$(subst /,-,$(CURDIR))/build: .venv-export/constraints.txt

$(STAMPS)/export: $(wildcard requirements/export/*) requirements/export.sh .venv-export/constraints.txt $(STAMPS)/build
	@requirements/export.sh install $(RUN) .venv-export/constraints.txt
	@touch $@

$(STAMPS)/test: $(STAMPS)/build
	@$(STEP) "installing the test tools" env $(WITH_ROS) $(PIP) install $(CONSTRAINTS) --no-build-isolation --editable '.[$(EXTRAS),test]'
	@$(SYSTEM) qt $(RUN)
	@$(STEP) "unpacking Prometheus for the tests" requirements/debian.sh prometheus $(VENV)/debian usr/bin/promtool usr/bin/prometheus
	@$(STEP) "unpacking Alertmanager for the tests" requirements/debian.sh prometheus-alertmanager $(VENV)/debian usr/bin/amtool usr/bin/prometheus-alertmanager \
	  usr/share/prometheus/alertmanager/default.tmpl usr/share/prometheus/alertmanager/email.tmpl
	@command -v haproxy >/dev/null || $(STEP) "unpacking HAProxy for the tests" requirements/debian.sh --with-needs haproxy $(VENV)/haproxy
	@command -v systemd-analyze >/dev/null || $(STEP) "unpacking systemd for the tests" requirements/debian.sh --with-needs systemd $(VENV)/systemd
	@touch $@

# The page is tested in a real browser: one that is installed, else Debian's, unpacked beside the Python packages. What is
# tested on another ROS than Jazzy needs none. axe-core is a script that the browser runs; a wheel without its dependencies holds it.
$(STAMPS)/browser: requirements/debian.sh requirements/axe.txt $(STAMPS)/build
	@[ $(ROS) = jazzy ] || exec touch $@; \
	$(PIP) install --no-deps --upgrade --target $(VENV)/axe -r requirements/axe.txt; \
	for name in chromium-headless-shell chromium google-chrome; do \
	  ! command -v $$name >/dev/null || exec touch $@; \
	done; \
	$(STEP) "unpacking Chromium for the tests (100 MB to fetch)" requirements/debian.sh --with-needs chromium-headless-shell $(VENV)/chromium && touch $@

# No ROS wheel brings control_msgs: tests compile what they need of it beside the environment, where no other program finds it.
$(STAMPS)/control_msgs: test/support/control_msgs_substitute.py $(STAMPS)/build
	@$(STEP) "compiling what the tests need of control_msgs" $(RUN) test/support/control_msgs_substitute.py
	@touch $@

$(STAMPS)/simulator: $(STAMPS)/build
	@$(STEP) "checking that the simulator can draw" $(SYSTEM) simulator $(RUN)
	@touch $@
