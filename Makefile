# SPDX-FileCopyrightText: The mooring authors
# SPDX-License-Identifier: Apache-2.0
#
# Everything built lands in build/. `make help` lists the targets.

PREFIX      ?= /usr/local
LUA_VERSION  = 5.1
LUADIR      ?= $(PREFIX)/share/lua/$(LUA_VERSION)
LIBDIR      ?= $(PREFIX)/lib/lua/$(LUA_VERSION)
INSTALL     ?= install
LUAJIT      ?= luajit
CFLAGS      ?= -O2 -g
BUILD       ?= build

# make V=1 shows the commands.
Q            = $(if $(V),,@)
say          = $(if $(V),,@echo '  $(1)  $(patsubst $(BUILD)/%,%,$(2))')

# What the project cannot be built without; the user's CFLAGS come on top.
WARNINGS     = -Wall -Wextra -Wstrict-prototypes -Werror
MR_CFLAGS    = -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden $(WARNINGS)
# nodelete: the regions of a process are listed in a static of the library,
# which has to survive the dlclose of a Lua VM that is replaced on a reload.
MR_LDFLAGS   = -shared -Wl,-z,nodelete -Wl,-z,now
MR_LIBS      = -lhiredis -lpthread

SOURCES     := $(wildcard c/*.c)
HEADERS     := $(wildcard c/*.h)
OBJECTS     := $(SOURCES:c/%.c=$(BUILD)/obj/%.o)
LIBRARY      = $(BUILD)/libmooring.so
CDEF         = $(BUILD)/lua/resty/mooring/cdef.lua

.PHONY: all
all: $(LIBRARY) $(CDEF) ## build the core into build/ (the default)

$(LIBRARY): $(OBJECTS)
	$(call say,LINK,$@)
	$(Q)$(CC) $(MR_LDFLAGS) $(LDFLAGS) -o $@ $^ $(MR_LIBS)

$(BUILD)/obj/%.o: c/%.c $(HEADERS) | $(BUILD)/obj
	$(call say,CC  ,$@)
	$(Q)$(CC) $(MR_CFLAGS) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj $(BUILD)/obj/testing $(BUILD)/lua/resty/mooring $(BUILD)/test:
	@mkdir -p $@

# The public headers without their preprocessor lines are what ffi.cdef takes.
PUBLIC_HEADERS = c/mooring.h c/mooring_redis.h
$(CDEF): $(PUBLIC_HEADERS) Makefile | $(BUILD)/lua/resty/mooring
	@{ echo '-- Generated from $(PUBLIC_HEADERS); do not edit.'; \
	   sed -n 's/^#define MOORING_VERSION "\(.*\)"/local version = "\1"/p; s/^#define MOORING_ABI \(.*\)/local abi = \1/p' $<; \
	   echo 'return { version = version, abi = abi, cdef = [['; \
	   sed -e '/^#ifdef __cplusplus/,/^#endif/d' \
	       -e 's/^#define MOORING_ABI \(.*\)/enum { MR_DECLARED_ABI = \1 };/' -e '/^#/d' -e 's/MR_API //' $(PUBLIC_HEADERS); \
	   echo ']] }'; } > $@.tmp && mv $@.tmp $@

# ------------------------------------------------------------- checking --

C_TESTS     := $(patsubst c/test/%.c,$(BUILD)/test/%,$(wildcard c/test/test_*.c))

# The tests are linked with the objects themselves: they reach what the library
# does not export. Built with MR_TESTING these also fail allocations, and die at
# given points, on demand.
TEST_OBJECTS := $(SOURCES:c/%.c=$(BUILD)/obj/testing/%.o) \
                $(BUILD)/obj/testing/support.o

$(BUILD)/obj/testing/%.o: c/%.c $(HEADERS) | $(BUILD)/obj/testing
	$(call say,CC  ,$@)
	$(Q)$(CC) $(MR_CFLAGS) -DMR_TESTING $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/obj/testing/support.o: c/test/support.c c/test/support.h $(HEADERS) \
                                | $(BUILD)/obj/testing
	$(call say,CC  ,$@)
	$(Q)$(CC) $(MR_CFLAGS) $(CPPFLAGS) $(CFLAGS) -Ic -c -o $@ $<

$(BUILD)/test/%: c/test/%.c $(wildcard c/test/*.h) $(TEST_OBJECTS) | $(BUILD)/test
	$(call say,LINK,$@)
	$(Q)$(CC) $(MR_CFLAGS) $(CPPFLAGS) $(CFLAGS) -Ic -o $@ $< $(TEST_OBJECTS) \
	    $(LDFLAGS) $(MR_LIBS) -lcmocka

# The kill matrix counts every store to the region: -fsanitize=thread makes the
# compiler call a function before each, and c/test/stores.c is these functions.
STORE_OBJECTS := $(SOURCES:c/%.c=$(BUILD)/obj/stores/%.o)
STORE_CFLAGS   = $(MR_CFLAGS) -DMR_TESTING -Ic \
                 $(filter-out -fsanitize=% --coverage -fprofile-%,$(CFLAGS))
KILL_MATRIX    = $(BUILD)/test/test_kill_matrix

$(BUILD)/obj/stores/%.o: c/%.c $(HEADERS)
	@mkdir -p $(BUILD)/obj/stores
	$(call say,CC  ,$@)
	$(Q)$(CC) $(STORE_CFLAGS) $(CPPFLAGS) -fsanitize=thread -w -c -o $@ $<

$(KILL_MATRIX): c/test/test_kill_matrix.c $(wildcard c/test/*.h) \
                c/test/operations.c c/test/stores.c c/test/support.c \
                $(STORE_OBJECTS) | $(BUILD)/test
	$(call say,LINK,$@)
	$(Q)$(CC) $(STORE_CFLAGS) $(CPPFLAGS) -o $@ $(filter %.c %.o,$^) \
	    $(filter-out -fsanitize=% --coverage -u __gcov_dump,$(LDFLAGS)) $(MR_LIBS) -lcmocka

.PHONY: kill-matrix
kill-matrix: ## kill a process at every step of every write to a region; then seeded bugs
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory $(KILL_MATRIX)
	@$(KILL_MATRIX)
	@SEEDED_CC='$(CC) $(STORE_CFLAGS) $(CPPFLAGS)' BUILD=$(BUILD) \
	    SEEDED_LIBS='$(MR_LIBS) -lcmocka' c/test/seeded '$(BUGS)'

# Objects of the tests stay, for the next run.
.SECONDARY: $(TEST_OBJECTS) $(STORE_OBJECTS)

# Makes allocations of the real library fail, for spec/memory.
FAILING       = $(BUILD)/test/libfailing.so
$(FAILING): c/test/failing.c | $(BUILD)/test
	$(call say,LINK,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -fPIC -shared $(WARNINGS) $(CPPFLAGS) \
	    -O2 -g -o $@ $< -ldl

.PHONY: c-tests
c-tests: $(C_TESTS)

# ------------------------------------------------- fuzzing and sanitizers --

FUZZ_CC      ?= clang
FUZZ_SECONDS ?= 60
SANITIZE      = -fsanitize=address,undefined -fno-sanitize-recover=all \
                -fno-omit-frame-pointer

# The targets of c/fuzz: each is linked with the objects of the core, built so
# that allocations fail and processes die on demand.
FUZZ_CFLAGS   = -std=c11 -D_GNU_SOURCE $(WARNINGS) -DMR_TESTING -Ic -O1 -g \
                $(SANITIZE) -fsanitize=fuzzer-no-link
FUZZ_CORE    := $(SOURCES:c/%.c=$(BUILD)/fuzz/obj/core/%.o)
FUZZ_OBJECTS_cache = $(patsubst %,$(BUILD)/fuzz/obj/%.o,fuzz_cache keys model \
                watch steps step_put step_many carried mutate)
FUZZ_OBJECTS_resp = $(patsubst %,$(BUILD)/fuzz/obj/%.o,fuzz_resp wire)
FUZZ_LDFLAGS_cache = -Wl,--wrap=mr_fault_point
FUZZ_LDFLAGS_resp = -Wl,--wrap=malloc
FUZZ_TARGETS  = $(BUILD)/fuzz/fuzz_cache $(BUILD)/fuzz/fuzz_resp

$(BUILD)/fuzz/obj/core:
	@mkdir -p $@

$(BUILD)/fuzz/obj/core/%.o: c/%.c $(HEADERS) | $(BUILD)/fuzz/obj/core
	$(call say,CC  ,$@)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -c -o $@ $<

$(BUILD)/fuzz/obj/%.o: c/fuzz/%.c $(HEADERS) $(wildcard c/fuzz/*.h) \
                       | $(BUILD)/fuzz/obj/core
	$(call say,CC  ,$@)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -c -o $@ $<

$(BUILD)/fuzz/fuzz_cache: $(FUZZ_OBJECTS_cache)
$(BUILD)/fuzz/fuzz_resp: $(FUZZ_OBJECTS_resp)
$(FUZZ_TARGETS): $(BUILD)/fuzz/fuzz_%: $(FUZZ_CORE)
	$(call say,LINK,$@)
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $^ \
	    $(FUZZ_LDFLAGS_$*) $(MR_LIBS)

.PHONY: fuzz
fuzz: ## random inputs against naive models (FUZZ_SECONDS=60 a target, FUZZ_SEED=)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all $(FUZZ_TARGETS)
	@BUILD="$(BUILD)" LUAJIT="$(LUAJIT)" FUZZ_CORPUS="$(BUILD)/fuzz/corpus" \
	    c/fuzz/run $(FUZZ_SECONDS) $(FUZZ_SECONDS)

.PHONY: fuzz-short
fuzz-short: all $(FUZZ_TARGETS)
	@BUILD="$(BUILD)" LUAJIT="$(LUAJIT)" c/fuzz/run 5 3

.PHONY: fuzz-seeded
fuzz-seeded: all $(FAILING) $(FUZZ_TARGETS) ## that fuzzing finds bugs put in on purpose (BUG=part of a name)
	@BUILD="$(BUILD)" LUAJIT="$(LUAJIT)" FUZZ_CC="$(FUZZ_CC)" \
	    FUZZ_CFLAGS="$(FUZZ_CFLAGS)" \
	    FUZZ_OBJECTS_cache="$(FUZZ_OBJECTS_cache)" \
	    FUZZ_OBJECTS_resp="$(FUZZ_OBJECTS_resp)" \
	    FUZZ_LDFLAGS_cache="$(FUZZ_LDFLAGS_cache)" \
	    FUZZ_LDFLAGS_resp="$(FUZZ_LDFLAGS_resp)" c/fuzz/seeded $(if $(BUG),"$(BUG)")

# The same rules in another directory, with other flags.
ASAN_RUNTIME  = $(shell $(FUZZ_CC) -print-file-name=libclang_rt.asan-$(shell uname -m).so)

.PHONY: asan
asan: ## C tests and specs, also in nginx, under the address and undefined sanitizers
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CC=$(FUZZ_CC) \
	    CFLAGS="-O1 -g $(SANITIZE)" LDFLAGS="$(SANITIZE)" all c-tests
	@BUILD="$(BUILD)/asan" ASAN_RUNTIME="$(ASAN_RUNTIME)" LUAJIT="$(LUAJIT)" \
	    c/test/run-under asan

.PHONY: tsan
tsan: ## a hammer of threads on one region under the thread sanitizer, and seeded races
	@$(MAKE) --no-print-directory deps
	@BUILD="$(BUILD)" TSAN_SECONDS="$(TSAN_SECONDS)" TSAN_CC="$(FUZZ_CC) \
	    -std=c11 -D_GNU_SOURCE -Ic -O1 -g -fsanitize=thread" c/test/run-tsan

.PHONY: valgrind
valgrind: ## C tests under valgrind
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/valgrind CFLAGS="-O1 -g" c-tests
	@BUILD="$(BUILD)/valgrind" c/test/run-under valgrind

.PHONY: coverage
coverage: ## lines and branches of c/ and lua/ that tests reach (SUITES=, build/coverage/report)
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) gcovr"
	@$(MAKE) --no-print-directory all $(FAILING) $(NODE_MODULES)
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/coverage CC=gcc \
	    CFLAGS="-O0 -g --coverage" \
	    LDFLAGS="--coverage -u __gcov_dump" c-tests
	@LUAJIT="$(LUAJIT)" spec/coverage/run $(SUITES)

# ----------------------------------------------------------------- running --

# The MCP client and server of the specs and the demo, from the npm registry.
NODE_MODULES = $(BUILD)/node/.installed
$(NODE_MODULES): spec/fixtures/mcp/package.json spec/fixtures/mcp/package-lock.json
	@mkdir -p $(BUILD)/node
	@cp $^ spec/fixtures/mcp/.npmrc $(BUILD)/node/
	npm ci --prefix $(BUILD)/node --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: test
test: ## run every test; ends with "N passed, N failed"
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j2 all c-tests $(C_BENCH) $(FAILING) $(FUZZ_TARGETS) \
	    $(NODE_MODULES)
	@LUAJIT="$(LUAJIT)" spec/support/run-tests $(SUITES)

.PHONY: history
history: ## 60 s of random operations and faults on two replicas, checked (SECONDS=, SEED=)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all
	@LUAJIT="$(LUAJIT)" spec/history/run

.PHONY: evictions
evictions: all ## count what hooks are told over 1,000,000 operations of 4 workers (OPERATIONS=)
	@OPERATIONS="$(or $(OPERATIONS),1000000)" LUAJIT="$(LUAJIT)" \
	    spec/support/busted spec/integration/evictions_spec.lua

.PHONY: soak
soak: ## mixed traffic, reloads and restarts for 20 minutes, into build/soak (MINUTES=)
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) gnuplot-nox"
	@$(MAKE) --no-print-directory all $(NODE_MODULES)
	@LUAJIT="$(LUAJIT)" MINUTES="$(or $(MINUTES),20)" spec/soak/run

.PHONY: kills
kills: ## kill 200 workers of two replicas under traffic (KILLS=, SEED=)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all $(NODE_MODULES)
	@LUAJIT="$(LUAJIT)" KILLS="$(or $(KILLS),200)" spec/soak/run kills

.PHONY: model
model: ## verify the Promela model of coherence, and that seeded bugs break it
	@$(MAKE) --no-print-directory deps
	@spec/model/run

.PHONY: check-policy
check-policy: all ## say what is wrong with a policy file, which nginx -t does not (FILE=)
	@[ -n "$(FILE)" ] || { echo 'usage: make check-policy FILE=policy.lua' >&2; exit 2; }
	@eval "$$($(MAKE) -s --no-print-directory env)"; \
	$(LUAJIT) -e 'ok, err = pcall(require("resty.mooring.policy").check, arg[1])' \
	    -e 'if not ok then io.stderr:write(err, "\n") os.exit(1) end' /dev/null "$(FILE)"

.PHONY: lint
lint: ## luacheck, cppcheck, both compilers, the rockspec; warnings are errors
	@$(MAKE) --no-print-directory deps
	luacheck --quiet lua spec rockspec/*.rockspec .luacheckrc
	cppcheck --quiet --std=c11 --language=c --error-exitcode=1 --inline-suppr \
	    --enable=warning,performance,portability \
	    --suppress=missingIncludeSystem --library=posix -Ic c
	for cc in gcc clang; do for f in c/*.c c/test/*.c c/bench/*.c; do \
	    $$cc $(MR_CFLAGS) -Ic -fsyntax-only $$f || exit 1; done; done
	for f in rockspec/*.rockspec; do luarocks lint $$f || exit 1; done

.PHONY: demo
demo: ## show the main job on real servers (KEEP=1, STORAGE=local)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all $(NODE_MODULES)
	@LUAJIT="$(LUAJIT)" KEEP="$(KEEP)" STORAGE="$(STORAGE)" spec/demo/run

# What `make bench` uses beside PACKAGES. It may be missing: no plots then.
BENCH_PACKAGES = gnuplot-nox

C_BENCH     := $(patsubst c/bench/%.c,$(BUILD)/bench/%,$(wildcard c/bench/*.c))

$(BUILD)/bench/%: c/bench/%.c c/bench/bench.h $(OBJECTS)
	@mkdir -p $(BUILD)/bench
	$(call say,LINK,$@)
	$(Q)$(CC) $(MR_CFLAGS) $(CPPFLAGS) $(CFLAGS) -Ic -o $@ $< $(OBJECTS) \
	    $(LDFLAGS) $(MR_LIBS)

.PHONY: repair-time
repair-time: $(BUILD)/bench/repair ## how long the repair of 1,000,000 entries takes, and what others get
	@$(BUILD)/bench/repair

.PHONY: bench
bench: ## measure against lrucache, shared.DICT, nginx.redis, proxy_pass (QUICK=1, ONLY=hits,.., RUNS=3)
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) $(BENCH_PACKAGES)"
	@$(MAKE) --no-print-directory all $(C_BENCH)
	@LUAJIT="$(LUAJIT)" QUICK="$(QUICK)" ONLY="$(ONLY)" RUNS="$(or $(RUNS),1)" spec/bench/run

# -------------------------------------------------------------- installing --

# What building, testing and the demo use, on Debian 12 and later and Ubuntu
# 24.04: the compilers and the library, LuaJIT of OpenResty and its modules,
# nginx, Redis, the tools of lint and tests, and those of the budgets.
PACKAGES     = gcc clang libc6-dev libhiredis-dev libcmocka-dev cppcheck \
               luajit2 lua-cjson lua-nginx-dns lua-busted lua-check luarocks \
               nginx libnginx-mod-http-lua redis-server \
               curl openssl spin libclang-rt-dev \
               valgrind wrk lua-nginx-redis

.PHONY: deps
deps: ## install what is missing from Debian/Ubuntu packages (root or sudo)
	@missing=; for p in $(PACKAGES); do \
	    dpkg-query -W -f='$${Status}' $$p 2>/dev/null \
	        | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null \
	    || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	[ -n "$$missing" ] || exit 0; \
	echo "installing:$$missing"; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get update -qq && \
	$$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null

.PHONY: env
env: ## print what to eval for running from this checkout
	@echo 'export LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/$(BUILD)/lua/?.lua;$${LUA_PATH:-;}"'
	@echo 'export LUA_CPATH="$(CURDIR)/$(BUILD)/?.so;$${LUA_CPATH:-;}"'

.PHONY: install
install: all ## install into DESTDIR, PREFIX (/usr/local), LUADIR, LIBDIR
	cd lua && find . -name '*.lua' -o -name '*.conf' | while read -r f; do \
	    $(INSTALL) -D -m 644 "$$f" "$(DESTDIR)$(LUADIR)/$$f" || exit 1; done
	$(INSTALL) -D -m 644 $(CDEF) "$(DESTDIR)$(LUADIR)/resty/mooring/cdef.lua"
	$(INSTALL) -D -m 755 $(LIBRARY) "$(DESTDIR)$(LIBDIR)/libmooring.so"

.PHONY: clean
clean: ## remove build/
	rm -rf $(BUILD)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | sort | expand -t 14
