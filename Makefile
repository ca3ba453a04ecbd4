# sockmgr: everything a developer or CI runs. `make` lists the targets.

MODULE  := github.com/sockmgr/sockmgr
GO      ?= go
BIN     := bin

# Only the race detector needs cgo and a C compiler.
export CGO_ENABLED := 0
CC_FOUND = command -v "$$($(GO) env CC | cut -d' ' -f1)" >/dev/null 2>&1

# Tools: run by version, never in go.mod. The first run compiles them.
BUF_VERSION           := v1.75.0
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.9.0
BENCHSTAT_VERSION     := v0.0.0-20260908200009-22c9c6c9d4da
BUF           := $(GO) run github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)
GOLANGCI_LINT := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
GOVULNCHECK   := $(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
BENCHSTAT     ?= $(GO) run golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)

# The Python client makes its messages from the API's descriptors, so it needs no compiler and no plugin.
PYTHON_API  := clients/python/sockmgr/api.binpb
DESCRIPTORS := --as-file-descriptor-set --exclude-source-info

# Turned by the caller: make fuzz FUZZTIME=1m FUZZONLY=RPC, make bench BENCHFLAGS='--cases echo-64', make bench-go BASE=main.
TESTFLAGS    ?=
TEST_TIMEOUT ?= 10m
FUZZTIME     ?= 10s
FUZZONLY     ?=
SOAK         ?= 2m
SOAKFLAGS    ?=
BENCHTIME    ?= 100ms
BASE         ?=
COUNT        ?= 6
BENCH        ?= .
PKGS         ?=
BENCHFLAGS   ?=
DEMO_PORT    ?=

# Programs of others that TestPeers talks to, and where Debian has them.
PEERS := curl haproxy nginx openssl psql redis-server socat
PEERS_HOW := apt-get install curl haproxy nginx-light openssl postgresql redis-server socat
PEERS_MISSING = for p in $(PEERS); do command -v $$p >/dev/null || echo "$@: no $$p here: tests that need it skip ($(PEERS_HOW))"; done

# Floors under stress in `make race`.
FLOORS := ./mux/... ./listeners/... ./sockets/... ./manager/...

# What the programs say they are: the last tag, or devel where there is none.
VERSION := $(patsubst v%,%,$(shell git describe --tags --match 'v*' --dirty 2>/dev/null || echo devel))
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -X $(MODULE)/cmd/sockctl/cli.Version=$(VERSION) \
           -X $(MODULE)/cmd/sockmgr/daemon.Version=$(VERSION) \
           $(if $(COMMIT),-X $(MODULE)/cmd/sockmgr/daemon.Commit=$(COMMIT))
BUILD   := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := help
.PHONY: help build demo test test-peers race bench bench-go bench-peers soak fuzz lint fmt generate verify verify-mod verify-gen verify-proto \
	verify-cross verify-vet govulncheck clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## bin/sockmgr and bin/sockctl
	@mkdir -p $(BIN)
	@$(BUILD) -o $(BIN)/ ./cmd/sockmgr ./cmd/sockctl
	@echo "built $(BIN)/sockmgr and $(BIN)/sockctl ($(VERSION))"

demo: build ## build, then show it at work (DEMO_PORT=8080)
	@DEMO_PORT='$(DEMO_PORT)' $(GO) run -buildvcs=false ./cmd/demo

test: verify-vet ## go vet and every test, with the race detector where there is a C compiler
	@$(PEERS_MISSING)
	@if $(CC_FOUND); then \
		CGO_ENABLED=1 $(GO) test -race -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./...; \
	else \
		echo "test: NO C COMPILER, so the race detector cannot be built in: running without -race"; \
		$(GO) test -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./...; \
	fi

test-peers: ## only the tests with real peers: HAProxy, nginx, curl, openssl, socat, Redis, PostgreSQL, Python
	@$(PEERS_MISSING)
	@out=$$(mktemp) && trap 'rm -f "$$out"' EXIT && race= && \
	if $(CC_FOUND); then export CGO_ENABLED=1; race=-race; fi; \
	if $(GO) test $$race -count=1 -v -timeout $(TEST_TIMEOUT) $(TESTFLAGS) -run '^TestPeers' ./listeners ./cmd/sockctl ./clients/... >"$$out" 2>&1; \
	then grep -E '^ *--- (PASS|SKIP): |apt-get install |^ok ' "$$out" | grep -v '^ *> '; \
	else cat "$$out"; exit 1; fi

race: ## stress: three runs of mux, listeners, sockets and manager under the race detector
	@$(CC_FOUND) || { echo "race: the race detector needs a C compiler (gcc or clang)" >&2; exit 1; }
	@CGO_ENABLED=1 $(GO) test -race -count=3 -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(FLOORS)

bench: build ## beside a Go net server in the same run (BENCHFLAGS='--help'), then bench-go; with BENCHFLAGS only the cases
	@$(GO) run -buildvcs=false ./bench $(BENCHFLAGS)
	@$(if $(BENCHFLAGS),,$(MAKE) --no-print-directory bench-go)

bench-go: ## Go benchmarks and benchstat, beside the last run or in turn with another revision (BASE=main COUNT=6 BENCH=Echo PKGS=./mux)
	@GO='$(GO)' BASE='$(BASE)' COUNT='$(COUNT)' BENCHTIME='$(BENCHTIME)' BENCH='$(BENCH)' PKGS='$(PKGS)' \
	BENCHSTAT='$(BENCHSTAT)' bench/benchstat

bench-peers: build ## beside HAProxy, nginx, socat and a Go net server, whichever is installed (BENCHFLAGS='--help')
	@$(GO) run -buildvcs=false ./bench --peers $(BENCHFLAGS)

soak: build ## everything at once for SOAK (2m): load, changes, kills; ends with what it began with (SOAKFLAGS='--seed 7')
	@$(GO) run -buildvcs=false ./bench/soak --for $(SOAK) $(SOAKFLAGS)

fuzz: ## every fuzz target for FUZZTIME (10s) each, two at a time (FUZZONLY=RPC)
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' FUZZONLY='$(FUZZONLY)' .ci/fuzz

lint: ## golangci-lint: rules in .golangci.yml, the floors among them
	@echo "lint: golangci-lint $(GOLANGCI_LINT_VERSION)"
	@$(GOLANGCI_LINT) run --allow-parallel-runners ./...

fmt: ## format Go and proto files
	@$(GOLANGCI_LINT) fmt ./...
	@$(BUF) format -w

generate: ## gen/ and the Python client's descriptors from proto/, and the reference pages of docs/ from the code
	@$(BUF) generate
	@$(BUF) build $(DESCRIPTORS) -o $(PYTHON_API)
	@$(GO) run ./docs/gen

verify: verify-mod verify-gen verify-proto verify-vet verify-cross lint ## what CI asks besides the tests
	@echo "verify: ok"

verify-mod:
	@echo "verify: go.mod and go.sum are tidy"
	@$(GO) mod tidy -diff

verify-gen:
	@echo "verify: gen/ and $(PYTHON_API) are what proto/ generates"
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(BUF) generate -o "$$tmp" && \
	$(BUF) build $(DESCRIPTORS) -o "$$tmp/api.binpb" && diff -r "$$tmp/gen" gen && cmp "$$tmp/api.binpb" $(PYTHON_API) || \
	{ echo "what is generated is stale: run make generate" >&2; exit 1; }

# The last tag is unpacked rather than cloned: a linked worktree has no .git directory.
verify-proto:
	@echo "verify: proto style and compatibility"
	@$(BUF) lint
	@$(BUF) format --diff --exit-code
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); \
	if [ -z "$$tag" ]; then echo "  no tag yet: nothing to be compatible with"; exit 0; fi; \
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	git archive -o "$$tmp/last.tar" "$$tag" proto buf.yaml && tar -xf "$$tmp/last.tar" -C "$$tmp" && \
	$(BUF) breaking --against "$$tmp"

verify-vet:
	@echo "go vet"
	@$(GO) vet ./...

verify-cross:
	@echo "verify: sockctl builds for darwin and windows, sockmgr for linux/arm64"
	@for os_arch in darwin/amd64 darwin/arm64 windows/amd64; do \
		GOOS=$${os_arch%/*} GOARCH=$${os_arch#*/} $(BUILD) -o /dev/null ./cmd/sockctl || exit 1; \
	done
	@GOOS=linux GOARCH=arm64 $(BUILD) -o /dev/null ./cmd/sockmgr

govulncheck: ## known vulnerabilities (asks vuln.go.dev)
	@$(GOVULNCHECK) ./...

clean: ## remove bin/
	@rm -rf $(BIN)
