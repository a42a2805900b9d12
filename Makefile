# muster: `make run` for a cluster of three on this machine, `make test` for the tests. Both set up what they need.
SHELL := bash
GO    ?= go
DEPS  := $(CURDIR)/.deps/dqlite

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
STAMP   := -X muster/cli.Version=$(VERSION) -X muster/cli.Commit=$(COMMIT)

# One SQLite in the process: libdqlite.a takes its sqlite3_* from go-sqlite3 (so no libsqlite3 tag).
export CGO_ENABLED := 1
export CGO_CFLAGS  := -O2 -I$(DEPS)/include
export CGO_LDFLAGS := -L$(DEPS)/lib -ldqlite -l:libuv_a.a -llz4 -lpthread -lm -ldl
# One set of flags for all: what one command has compiled, the others find in Go's cache.
export GOFLAGS := -tags=netgo,osusergo -trimpath
STATIC := -linkmode external -extldflags "-static -Wl,--no-warnings" -s -w

.PHONY: dist dist-test upgrade-test build run test docs-test env test-engine asan race faults lint bench man notice image install clean setup setup-test setup-bench FORCE

build: setup muster

muster: FORCE
	@$(GO) build -ldflags '$(STATIC) $(STAMP)' -o muster .

run: build
	@./muster dev --data ./data

# Go's tests. Their binaries are linked without debugging information, which takes half as long; what `make lint` has vetted in
# the same call is not vetted again.
VET     := $(if $(filter lint check,$(MAKECMDGOALS)),-vet=off)
GO_TEST := $(GO) test -ldflags '-s -w' $(VET)
CLIENTS := $(CURDIR)/.deps/conformance.test
BESIDE  :=

# Most tests wait, for elections, disks and processes, and not for a processor: several run at once. autopilot has no goroutines
# that the race detector could judge, and computes much. A test binary with the detector sleeps for a second before it ends.
.PHONY: test-units test-processes test-documents test-clients
test: setup-test test-units test-processes
	@$(MAKE) --no-print-directory -j 2 -O VET=$(VET) test-documents test-clients

test-units: setup-test
	GORACE=atexit_sleep_ms=0 $(GO_TEST) -race -p 2 -parallel 3 -timeout 15m $$($(GO) list ./... | grep -v '/e2e\|/cluster/autopilot$$')
test-processes: setup-test test-units
	$(GO_TEST) -p 2 -parallel 4 -timeout 25m ./cluster/autopilot ./e2e ./e2e/lost ./e2e/faults

# The documents' commands and the package, beside the official clients of other systems.
test-documents: build
	MUSTER_BINARY=$(CURDIR)/muster $(GO_TEST) -p 2 -parallel 3 -timeout 10m ./e2e/docs ./e2e/dist
test-clients: build $(CLIENTS)
	cd testdata/conformance && CGO_ENABLED=0 $(CLIENTS) -test.parallel 3 -test.timeout 5m
$(CLIENTS): FORCE
	@cd testdata/conformance && CGO_ENABLED=0 $(BESIDE) $(GO_TEST) -c -o $@ .

# What decides whether work lands. The linters, the engine's tests and the compilation of the large clients take what the tests
# leave of the processors, which wait most of the time: BESIDE is below all of them.
.PHONY: check check-beside
check: setup-test
	@$(MAKE) --no-print-directory -j 3 -Oline VET=$(VET) BESIDE='nice -n 19' test check-beside
check-beside: build
	$(BESIDE) $(MAKE) --no-print-directory $(CLIENTS) lint test-engine

# The end-to-end tests with the race detector in every process: about five minutes on two cores.
race: setup-test
	$(GO) test -race -timeout 25m ./e2e

# Three members of the released muster become this one, under load.
upgrade-test: setup-test
	MUSTER_E2E_RELEASED=1 $(GO) test -count 1 -v -timeout 10m -run 'TestUpgradeFromReleased$$' ./e2e

# Every command of README.md and docs/, as it stands there, against real clusters (e2e/docs).
docs-test: setup-test
	$(GO) test -count 1 -timeout 5m -parallel 3 ./e2e/docs

# What `go build` and `go test` need, for a shell: eval "$(make env)".
env: setup
	@echo 'export CGO_ENABLED=1'
	@echo 'export CGO_CFLAGS="$(CGO_CFLAGS)"'
	@echo 'export CGO_LDFLAGS="$(CGO_LDFLAGS)"'
	@echo 'export GOFLAGS="$(GOFLAGS)"'

# Every fuzz target, one after the other: make fuzz FUZZTIME=1m. What one finds goes into testdata/fuzz of its package, as a seed
# that `make test` runs from then on. Minimising an input takes up to a minute by default, and nothing else runs meanwhile.
FUZZTIME ?= 1m
fuzz: setup
	@for package in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' ./$$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./$$package || exit 1; \
		done; \
	done

# dqlite's own tests of what scripts/dqlite/*.patch touch, under AddressSanitizer.
test-engine:
	@scripts/setup.sh engine
	ASAN_OPTIONS=detect_leaks=0 .deps/dqlite-tests/unit-test
	ASAN_OPTIONS=detect_leaks=0 .deps/dqlite-tests/raft-test

# muster with a libdqlite and an SQLite under AddressSanitizer. Go has its own handlers of signals: run it with
# ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_abort=0
asan: setup
	@scripts/setup.sh asan
	CGO_CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address -I$(DEPS)-asan/include' \
		CGO_LDFLAGS='-fsanitize=address $(subst $(DEPS),$(DEPS)-asan,$(CGO_LDFLAGS))' $(GO) build -ldflags '$(STAMP)' -o muster-asan .

# A campaign of faults against a real cluster (docs/reliability.md). A failing one leaves its record in OUT and says how to
# repeat it; BINARY runs another muster than the one that is built here.
FAULTS  ?= 100
SEED    ?= 1
MEMBERS ?= 3
faults: export FAULTS := $(FAULTS)
faults: export SEED := $(SEED)
faults: export MEMBERS := $(MEMBERS)
faults: setup-test
	$(GO) test -count 1 -v -timeout 0 -run 'TestCampaign$$' ./e2e/faults

lint: setup
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt'ed: $$out"; exit 1; }
	$(GO) vet ./...
	cd testdata/conformance && CGO_ENABLED=0 $(GO) vet ./...
	cd testdata/servers && CGO_ENABLED=0 $(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

# muster beside etcd and beside its engine alone (bench/README.md): make bench [BENCH='-only writes'] [RESULT=NAME]
# [PROFILE=DIR]. RESULT keeps the figures as bench/results/NAME.json, PROFILE leaves CPU, heap and mutex profiles of each part.
BENCH   ?=
RESULT  ?=
PROFILE ?=
bench: setup-bench build
	$(if $(PROFILE),$(GO) build -tags netgo,osusergo,profile -ldflags '$(STATIC) $(STAMP)' -o .deps/muster-profile .)
	cd bench && $(GO) run . -muster $(if $(PROFILE),../.deps/muster-profile -profile $(abspath $(PROFILE)),../muster) \
		$(if $(RESULT),-json results/$(RESULT).json) $(BENCH)

# A manual page for each command, made from the commands.
man: setup
	$(GO) run -ldflags '$(STAMP)' ./scripts/man man

# NOTICE: the licences of everything that is linked.
notice: setup
	$(GO) run ./scripts/notice NOTICE

# The container's image: the binary and a directory that belongs to its user. It is made here, for no image has to be fetched.
image: build
	@rm -rf .deps/image && mkdir -p .deps/image/data
	tar -C .deps/image --numeric-owner --owner=65532 --group=65532 --mode=0700 -cf data.tar data
	docker build -f deploy/Dockerfile -t muster .; code=$$?; rm -f data.tar; exit $$code

# What is handed out: archives and Debian packages (amd64, arm64), an SBOM, checksums. The same commit makes the same bytes;
# dist-test builds twice and compares.
dist: setup
	scripts/dist.sh dist

dist-test: setup-test
	MUSTER_DIST_TEST=1 $(GO) test -count 1 -v -timeout 40m ./e2e/dist

# The binary, its manual pages, the completions and the systemd unit: make install [PREFIX=/usr] [DESTDIR=…], as root.
PREFIX ?= /usr/local
UNITS  ?= /etc/systemd/system
install: build man
	install -Dm755 muster $(DESTDIR)$(PREFIX)/bin/muster
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m644 man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	./muster completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/muster
	./muster completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_muster
	./muster completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/muster.fish
	install -d $(DESTDIR)$(UNITS)
	for unit in muster.service muster-upgrade.service; do \
		sed 's|/usr/local/bin/muster|$(PREFIX)/bin/muster|' deploy/$$unit >$(DESTDIR)$(UNITS)/$$unit; \
	done

setup:
	@scripts/setup.sh build
setup-test:
	@scripts/setup.sh test
setup-bench:
	@scripts/setup.sh bench

clean:
	rm -rf muster muster-asan data man dist
