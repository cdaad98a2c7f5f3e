# The commands worth remembering. CI runs `make test`; everything else is for people.

BIN := bin/letterlock
export GOFLAGS ?= -buildvcs=false

# What a release holds, in the order of SHA256SUMS; contrib/build.sh knows how each is built.
RELEASED := letterlock-linux-amd64

.PHONY: build demo test tools check-format soak mutants bench peers fixture fuzz release reproduce clean

build: ## build the one binary
	@mkdir -p bin
	go build -o $(BIN) .

demo: build ## run the whole story: server, Alice, Bob and Flimmer as processes of their own (KEEP=1 leaves the server up)
	$(BIN) demo $(if $(KEEP),--keep)

test: tools check-format ## everything that must hold before a change lands
	go vet ./...
	go test -timeout 18m ./...
	go -C e2e/tlogjudges vet . && go -C e2e/tlogjudges test -timeout 10m .
	LETTERLOCK_TEST_STORE=postgres go test -timeout 10m ./delivery ./ledger ./inbox ./account ./oauth ./report ./server ./e2e/people
	LETTERLOCK_TEST_STORE=unlucky go test -timeout 10m ./delivery ./ledger ./inbox ./account ./oauth ./report ./server ./e2e/people

check-format:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "run gofmt on:"; echo "$$out"; exit 1; }

tools: ## what the tests need beyond Go, Node and a compiler
	@command -v strace >/dev/null || { (apt-get update && apt-get install -y --no-install-recommends strace) >/dev/null 2>&1 || { echo "strace is missing: apt-get install strace" >&2; exit 1; }; }
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || { (apt-get update && apt-get install -y --no-install-recommends postgresql-common && \
		sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && \
		apt-get install -y --no-install-recommends postgresql) >/dev/null 2>&1 || { echo "PostgreSQL is missing: apt-get install postgresql" >&2; exit 1; }; }
	@cd e2e/mlsinterop && { test -d node_modules || npm ci --no-audit --no-fund --loglevel=error >/dev/null; }
	@sh e2e/pyverify/install.sh >/dev/null

race: ## the packages that share memory, under the race detector
	go test -race -timeout 18m ./mls/... ./delivery ./ledger ./oauth ./account ./inbox ./device ./agent ./httpd ./dpop ./vault ./store/memory

soak: build ## 300 rounds of kill -9 under load on SQLite (the server) and 300 on PostgreSQL (the server, PostgreSQL, or both at once)
	LETTERLOCK_KILL_ROUNDS=300 go test -timeout 90m -count=1 -v -run '^TestKill' ./e2e/durability

mutants: ## switch off each defence in turn; its test must go red
	go run ./e2e/mutants

bench: build ## what a server does on this machine: sending, rooms, storms, idle devices, catching up, growth (ten minutes)
	$(BIN) bench all

peers: ## the same load on ejabberd and Prosody, in one run; installs them from Debian, with none of their services started
	@missing=$$(go run ./e2e/peers --missing); test -z "$$missing" || ./e2e/peers/install.sh $$missing
	go run ./e2e/peers $(PEERS)

fixture: build ## leave a data folder of this version for later ones to open (make it with every release, and commit it)
	e2e/upgrade/fixture.sh $(BIN) e2e/upgrade/testdata/$$(date -u +%F)-$$(git rev-parse --short HEAD).tar.gz

fuzz: ## ten seconds for each parser of outside bytes
	@for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p | grep ^Fuzz); do echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime 10s $$p || exit 1; done; done

release: ## the files of VERSION and their hashes, in dist/
	@test -n "$(VERSION)" || { echo "make release VERSION=v1.0.0" >&2; exit 1; }
	@rm -rf dist && mkdir dist
	@for name in $(RELEASED); do sh contrib/build.sh $$name "$(VERSION)" . dist/$$name || exit 1; done
	@cd dist && sha256sum $(RELEASED) | tee SHA256SUMS

reproduce: ## build what a release holds twice, in two places; one hash or an error (VERSION=v1.0.0: as that release)
	@sh contrib/reproduce.sh "$(or $(VERSION),unreleased)" $(RELEASED)

clean:
	rm -rf bin dist
