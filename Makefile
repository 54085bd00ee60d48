# Two commands do it all on a fresh machine: "make run" and "make test".
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
CREATED ?= $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS := -s -w -buildid= -X github.com/signpost/signpost/internal/cli.version=$(VERSION) -X github.com/signpost/signpost/internal/cli.commit=$(COMMIT)
SQLC    := go tool -modfile=tools/go.mod sqlc
LINT    := go tool -modfile=tools/lint/go.mod golangci-lint
# A count of runs, as Go before 1.27 may fail a target whose time is up (golang/go#75804).
FUZZTIME ?= 50000x
KILLS ?= 300
CLICKS ?= 10000000
COVERAGE_MIN := 80

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: setup build ## install what is missing, build, and start everything on localhost:8080
	@exec bin/signpost dev

.PHONY: test
test: setup-test ## every test, with the race detector and the coverage gate
	@rm -f bounds.out
	SIGNPOST_BOUNDS=$(CURDIR)/bounds.out go test -race -timeout 20m -coverpkg=./... -coverprofile=coverage.out ./...
	@tools/bounds.sh bounds.out
	@tools/check-coverage.sh coverage.out $(COVERAGE_MIN)

.PHONY: build
build: ## build bin/signpost
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/signpost .

.PHONY: cross-build
cross-build: ## build bin/signpost for the other platforms of a release
	@set -e; for platform in linux/amd64 linux/arm64; do \
		os=$${platform%/*} arch=$${platform#*/}; echo "bin/signpost-$$os-$$arch"; \
		GOOS=$$os GOARCH=$$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/signpost-$$os-$$arch .; done

.PHONY: setup setup-test
setup:
	@tools/setup.sh
setup-test:
	@tools/setup.sh test

.PHONY: generate
generate: ## make the Go code of the SQL queries and the configuration page
	$(SQLC) generate
	go run . config --markdown > docs/configuration.md
	deploy/kubernetes/rules.sh > deploy/kubernetes/base/rules.yaml

.PHONY: lint
lint: ## the linters
	$(LINT) run ./...
	@set -e; for dir in deploy/monitoring deploy/kubernetes/check e2e; do echo "lint $$dir"; \
		(cd $$dir && go tool -modfile=$(CURDIR)/tools/lint/go.mod golangci-lint run ./...); done

.PHONY: check
check: setup-test ## generated code, go.sum and the tree are in step
	$(SQLC) diff
	go run ./internal/pgtest/withpg SQLC_DATABASE_URL $(SQLC) vet
	go mod tidy -diff
	go mod verify
	@for dir in tools tools/lint deploy/monitoring deploy/kubernetes/check e2e; do (cd $$dir && go mod tidy -diff) || exit 1; done
	cd deploy/kubernetes/check && go test -count=1 ./... # what it reads is outside of its module: go would not see it change
	tools/check-tree.sh

.PHONY: e2e
e2e: ## the dashboard in a browser (SCREENSHOTS=folder keeps pictures of each page)
	@tools/setup.sh e2e
	cd e2e && go test -count=1 -timeout 15m -parallel 2 ./...

.PHONY: monitoring-check
monitoring-check: setup-test ## Prometheus' rules and Grafana's dashboards show a running Signpost
	@tools/setup.sh monitoring
	cd deploy/monitoring && go build -o ../../bin/monitoring-check .
	bin/monitoring-check

.PHONY: previous
previous: setup ## the previous release runs on this release's schema (PREVIOUS=v1.0)
	tools/previous.sh $(PREVIOUS)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (50000x)
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$file"); do \
			echo "fuzz $$target ($$(dirname $$file))"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x "$$(dirname $$file)"; \
		done; done

.PHONY: torture
torture: setup ## kill api, worker and Postgres 300 times under load, then count (KILLS=300)
	go run ./torture -kills $(KILLS)

.PHONY: torture-import
torture-import: setup ## kill workers and Postgres 20 times during an import of 1,000,000 rows, then compare
	go run ./torture -import -kills 20

.PHONY: torture-failover
torture-failover: setup ## fail over to a standby that lags under load, ship again, then count
	go run ./torture -failover

.PHONY: abuse
abuse: setup-test ## attack the api as strangers and token holders can, and watch what redirects see
	go run ./abuse

.PHONY: bench
bench: setup-test ## redirects against a bare handler, ingestion against COPY: one table of ratios
	go run ./bench

.PHONY: bench-stats
bench-stats: setup-test ## statistics over a year of clicks against plain SQL over the events (CLICKS=10000000)
	go run ./bench -only stats -clicks $(CLICKS)

.PHONY: bench-import
bench-import: setup ## imports of 10,000 to 1,000,000 rows against psql's \copy and INSERT ... SELECT
	go run ./bench -only import

.PHONY: lines
lines: ## lines of hand-written Go by package, and against another revision (BEFORE=v1.0)
	@tools/lines.sh $(BEFORE)

.PHONY: image
image: ## build the container image, signpost:latest
	docker build -t signpost:$(VERSION) -t signpost:latest --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) \
		--build-arg CREATED=$(CREATED) \
		$(foreach arg,GO_IMAGE RUNTIME_IMAGE GOPROXY HTTP_PROXY HTTPS_PROXY NO_PROXY,$(if $($(arg)),--build-arg $(arg))) \
		--secret id=ca_certificates,src=$(or $(SSL_CERT_FILE),/dev/null) .

.PHONY: reproducible
reproducible: ## build this commit twice and compare the binaries
	tools/reproducible.sh

.PHONY: env
env: ## make .env with fresh secrets, unless there is one
	tools/make-env.sh

.PHONY: up
up: env ## the whole system in containers (docker compose)
	VERSION=$(VERSION) COMMIT=$(COMMIT) CREATED=$(CREATED) docker compose up --build --wait

.PHONY: chaos
chaos: ## kill, pause, cut off and fill up what "make up" started, under load, and count
	deploy/chaos.sh

.PHONY: containers
containers: ## build, start, use, scale and disturb the system in containers, then remove it
	deploy/engine.sh
	deploy/local-images.sh
	deploy/e2e.sh

.PHONY: clean
clean: ## remove what was built (not the data in .signpost)
	rm -rf bin coverage.out bounds.out
