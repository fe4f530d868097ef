# All that is here is thin: requirements/environment.py makes the environment that the rest uses.
PYTHON ?= python3
IN_ENV = . .venv/karmma_env.sh &&

# Robots and colleagues on the same network neither hear the tests nor disturb them.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
ifeq ($(ROS_DISTRO),humble)
export ROS_LOCALHOST_ONLY := 1
endif

.PHONY: bench demo docs faults test lint env clean

demo: env
	@$(IN_ENV) python -m karmma_ros.node.demo

# Tests that start no ROS nodes: several processes run them at once.
PARALLEL := $(addprefix test/,bags cli cluster data evaluation labelling media modalities model preprocess reproduce stream training)

# The runtimes in a process of their own: torch.compile crashes beside all the other libraries.
test: lint
	@$(IN_ENV) python -m pytest test/model/backends
	@$(IN_ENV) OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PARALLEL) --ignore test/model/backends
	@$(IN_ENV) python -m pytest $(addprefix --ignore ,$(PARALLEL))

# Three quarters of an hour; what it finds goes into docs/reliability.md. FAULTS='--only soak' runs one case.
faults: env
	@$(IN_ENV) python test/faults/run.py $(FAULTS)

# What docs/performance.md and streaming.md say, measured and written there. BENCH='--only node'
# measures one part.
bench: env
	@$(IN_ENV) python benchmarks/run.py $(BENCH)

# The manual as a site: build/docs/index.html. Every warning is an error; every example is run.
docs: .venv/documentation
	@$(IN_ENV) PYTHONPATH=$(CURDIR)/.venv/documentation:$(CURDIR) python -m sphinx -q -W --keep-going -b html docs build/docs
	@$(IN_ENV) PYTHONPATH=$(CURDIR)/.venv/documentation:$(CURDIR) python -m sphinx -q -W --keep-going -b doctest docs build/doctest
	@echo 'docs: build/docs/index.html'

.venv/documentation: requirements/documentation.txt | env
	@$(IN_ENV) python -m pip install -q --upgrade --target $@ -r $<
	@touch $@

lint: env
	@$(IN_ENV) ruff check . && mypy

env:
	@command -v $(PYTHON) > /dev/null || { echo 'env: $(PYTHON) is not here: install Python 3.10 to 3.13 (sudo apt install python3 python3-venv python3-dev).' >&2; exit 1; }
	@$(PYTHON) requirements/environment.py

clean:
	rm -rf .venv build install log
