# The commands of this project. `make demo` and `make test` each work as the first command on a fresh machine with
# rustup's Rust, Python 3.9 or later with pip, and a C linker.

ENVOY_VERSION ?= 1.40.0
ENVOY := .venv/envoy/$(ENVOY_VERSION)/envoy/_bin/envoy
WASM := dist/egress-filter.wasm
IMAGE_TAR := dist/egress-filter-image.tar
# The module must stay below this many bytes: every sidecar holds it, and every VM compiles it.
WASM_LIMIT := 409600

# Istio and its own Envoy, for `make test-istio`: 1.28.3, 1.29.1 or main.
ISTIO ?= main
ISTIO_ENVOY_1.28.3 := 1.36.4
ISTIO_ENVOY_1.29.1 := 1.37.0
ISTIO_ENVOY_main := 1.40.0
ISTIO_ENVOY ?= $(ISTIO_ENVOY_$(ISTIO))

# How long `make fuzz` runs each target, in seconds.
FUZZ_SECONDS ?= 60

.PHONY: help setup wasm demo test bench lint fuzz clean
help:
	@echo 'make demo    a real Envoy with the filter: what clients see, and the metrics (KEEP=1: stays up to try)'
	@echo 'make test    all tests, natively and in Envoy $(ENVOY_VERSION) (ENVOY_VERSION=... for another)'
	@echo 'make test-istio   the same in a real Istio mesh (ISTIO=1.28.3, 1.29.1 or main); needs root and Go'
	@echo 'make wasm    $(WASM)'
	@echo 'make image   $(IMAGE_TAR), the module as an OCI image'
	@echo 'make push IMAGE=registry.example/egress-filter:TAG   pushes it, and prints the reference to pin; needs Go'
	@echo 'make egressctl   dist/egressctl, the command line'
	@echo 'make bench   what the filter costs, beside a no-op filter and RBAC'
	@echo 'make bench-replay   how fast egressctl reads access logs, beside jq and ripgrep'
	@echo 'make lint    formatting, clippy on both targets, documentation, size of the module'
	@echo 'make fuzz    each fuzz target for FUZZ_SECONDS=60; needs a nightly compiler and cargo-fuzz'
	@echo 'make setup   what the others need: the Rust target, and Envoy in .venv'
	@echo 'make setup-clients   what make test needs besides: curl, openssl, Go, Java, Chromium'

setup: setup-wasm
	@scripts/setup envoy $(ENVOY_VERSION)
	@scripts/setup python

.PHONY: setup-wasm setup-clients
setup-wasm:
	@scripts/setup wasm

setup-clients:
	@scripts/setup clients

wasm: setup-wasm
	@scripts/build-wasm egress-filter $(WASM)

.PHONY: image push
image: wasm
	@scripts/build-image $(WASM) $(IMAGE_TAR)

push: image
	@test -n '$(IMAGE)' || { echo 'push: make push IMAGE=registry.example/egress-filter:TAG'; exit 1; }
	@scripts/build-istio-tools crane
	@.tools/crane/crane push $(IMAGE_TAR:.tar=) '$(IMAGE)'

demo: setup wasm
	@.venv/bin/python envoy/demo.py --envoy $(ENVOY) --wasm $(WASM) $(if $(KEEP),--keep)

test: setup setup-clients wasm
	ENVOY=$(CURDIR)/$(ENVOY) EGRESS_FILTER_WASM=$(CURDIR)/$(WASM) cargo test --workspace --locked
	@.venv/bin/python envoy/demo.py --envoy $(ENVOY) --wasm $(WASM)

.PHONY: egressctl
egressctl:
	cargo build --locked --profile cli -p egressctl
	@mkdir -p dist
	@cp target/cli/egressctl dist/egressctl

.PHONY: test-istio
test-istio: setup-wasm image egressctl
	@scripts/setup mesh
	@test -n '$(ISTIO_ENVOY)' || { echo 'test-istio: ISTIO is 1.28.3, 1.29.1 or main'; exit 1; }
	@scripts/setup envoy $(ISTIO_ENVOY)
	@scripts/build-istio-tools $(ISTIO)
	.venv/bin/python -m pytest tests/istio --istio $(ISTIO) --envoy .venv/envoy/$(ISTIO_ENVOY)/envoy/_bin/envoy $(ARGS)

bench: setup wasm
	@scripts/build-wasm noop dist/noop.wasm
	cargo bench --locked --bench lookup
	for bench in envoy connections; do \
	  ENVOY=$(CURDIR)/$(ENVOY) EGRESS_FILTER_WASM=$(CURDIR)/$(WASM) NOOP_WASM=$(CURDIR)/dist/noop.wasm \
	    cargo bench --locked --bench $$bench || exit 1; \
	done

.PHONY: bench-replay
bench-replay: egressctl
	@python3 egressctl/benches/replay.py dist/egressctl target/bench-replay

lint: wasm
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if [ -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1/lib" ]; then set -x; \
	  cargo clippy --workspace --exclude egressctl --lib --locked --target wasm32-wasip1 -- -D warnings; \
	else echo 'lint: NOT CHECKED: src/filter, for which clippy needs the rustup target wasm32-wasip1'; fi
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --document-private-items
	@size=$$(wc -c < $(WASM)); test $$size -le $(WASM_LIMIT) || { echo "$(WASM): $$size bytes, more than $(WASM_LIMIT)"; exit 1; }

fuzz:
	@cargo fuzz --version > /dev/null 2>&1 || { echo 'fuzz: cargo install cargo-fuzz'; exit 1; }
	@rustup toolchain list | grep -q nightly || { echo 'fuzz: rustup toolchain install nightly'; exit 1; }
	@for target in authority client_hello config inspector; do \
	  mkdir -p fuzz/corpus/$$target; \
	  case $$target in client_hello | inspector) cp tests/client_hello/recorded/*.bin fuzz/corpus/$$target/;; \
	    config) cp tests/config_errors/*.json fuzz/corpus/config/;; esac; \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=70000 -print_final_stats=1 || exit 1; \
	done

clean:
	rm -rf target dist .venv .tools
