# What a person or CI asks of the project. `make` alone lists it.
#
# Everything in `test` and `check` uses one profile (dev) and one set of flags, so a second run compiles nothing.
# Only documentation has flags of its own (RUSTDOCFLAGS), which cargo keeps apart.

SHELL := /bin/sh
CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEBUG := $(TARGET)/debug/distilface
RELEASE := $(TARGET)/release/distilface
STEPS := $(TARGET)/steps

# Where the runtime and the model are: the same rule as `distilface setup` follows.
DISTILFACE_HOME ?= $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/distilface
export DISTILFACE_HOME

# Names a step, runs it, and notes how long it took; the first step that fails ends the run with a summary.
# A parameter must not hold a comma.
define step
@mkdir -p $(TARGET); printf '\n== %s\n' "$(1)"; began=$$(date +%s); \
if ( $(2) ); then printf 'ok      %5ss  %s\n' $$(( $$(date +%s) - began )) "$(1)" | tee -a $(STEPS); \
else printf 'FAILED  %5ss  %s\n' $$(( $$(date +%s) - began )) "$(1)" >> $(STEPS); \
printf '\n== summary\n'; cat $(STEPS); exit 1; fi
endef
begin = @mkdir -p $(TARGET); : > $(STEPS)
summary = @printf '\n== summary\n'; cat $(STEPS)

.DEFAULT_GOAL := help
.PHONY: help tools quickstart setup build test check audit bench clean
# Steps print in order, also under -j.
.NOTPARALLEL:

help: ## list what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' \
	  | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

tools:
	@missing=; \
	need() { command -v "$$1" >/dev/null 2>&1 || { missing=1; printf 'missing: %s\n  %s\n' "$$1" "$$2" >&2; }; }; \
	need $(CARGO) "install Rust 1.95 or newer: https://rustup.rs"; \
	if command -v $(CARGO) >/dev/null 2>&1 && ! $(CARGO) --version >/dev/null 2>&1; then \
	  missing=1; printf 'missing: a toolchain: %s is there and does not run\n  install one: rustup default stable\n' "$(CARGO)" >&2; fi; \
	need cc "install a C compiler (Debian and Ubuntu: apt install build-essential; Fedora: dnf install gcc)"; \
	need $(PYTHON) "install Python 3 with pip (Debian and Ubuntu: apt install python3 python3-pip)"; \
	if command -v $(PYTHON) >/dev/null 2>&1 && ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  missing=1; printf 'missing: pip\n  install it (Debian and Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip)\n' >&2; fi; \
	test -z "$$missing" || { echo "then run make again" >&2; exit 1; }

quickstart: tools ## from nothing to hits: set up, build, serve, ingest sample text, ask
	$(CARGO) build --release --locked
	DISTILFACE=$(RELEASE) PYTHON=$(PYTHON) sh clients/quickstart.sh $(TARGET)/quickstart

setup: tools ## fetch ONNX Runtime and the default model into the user's data folder
	$(CARGO) build --release --locked
	$(RELEASE) setup --python $(PYTHON)

build: tools ## the release binary, in target/release
	$(CARGO) build --release --locked

# `build --bins --tests` and not `build`: with the tests' dependencies in the picture from the start, cargo unifies
# features once and later steps find everything compiled.
test: tools ## everything CI demands: format, lints, tests, documentation, clients
	$(begin)
	$(call step,format,$(CARGO) fmt --check)
	$(call step,compile,$(CARGO) build --locked --bins --tests)
	$(call step,set up,$(DEBUG) setup --python $(PYTHON))
	$(call step,lints,$(CARGO) clippy --locked --all-targets -- -D warnings)
	$(call step,unit and property tests,$(CARGO) test --locked --lib --bins)
	$(call step,kernels of lesser processors,for simd in portable avx2; do DISTILFACE_SIMD=$$simd $(CARGO) test --locked --lib -- runtime::layer8:: vector:: simd:: || exit 1; done)
	$(call step,behaviour and crash tests,$(CARGO) test --locked --test '*')
	$(call step,doc tests,$(CARGO) test --locked --doc)
	$(call step,documentation,RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps)
	$(call step,Python client,DISTILFACE_BIN=$(abspath $(DEBUG)) PYTHON=$(PYTHON) sh clients/python/test.sh)
	$(summary)

check: tools ## what to run before each commit: format, lints, unit tests
	$(begin)
	$(call step,format,$(CARGO) fmt --check)
	$(call step,lints,$(CARGO) clippy --locked --all-targets -- -D warnings)
	$(call step,unit and property tests,$(CARGO) test --locked --lib --bins)
	$(summary)

audit: ## licences, bans and sources of all dependencies; advisories where their database can be reached
	@command -v cargo-deny >/dev/null 2>&1 || { \
	  echo "cargo-deny is missing; installing it (some minutes, once)"; \
	  $(CARGO) install --locked cargo-deny || { \
	    echo "cargo-deny could not be installed; install it yourself: cargo install --locked cargo-deny" >&2; exit 1; }; }
	$(CARGO) deny --locked --all-features check --hide-inclusion-graph licenses bans sources
	@if $(CARGO) deny --locked fetch db >/dev/null 2>&1; then \
	  $(CARGO) deny --locked --all-features check --hide-inclusion-graph advisories; \
	else echo "advisories: not checked, their database cannot be reached from here"; fi

bench: tools ## criterion benchmarks
	$(CARGO) bench --locked

clean: ## remove what was built and the quickstart's data; the set-up stays
	$(CARGO) clean
	rm -rf $(TARGET)
