# One word per job; cmake --preset NAME is all there is behind them.
.PHONY: all check clang asan tsan fuzz coverage lint format bench docs dist install clean

FUZZ_SECONDS ?= 60

all:
	cmake --preset release && cmake --build --preset release

check:
	cmake --preset dev && cmake --build --preset dev && ctest --preset dev

clang:
	cmake --preset dev-clang && cmake --build --preset dev-clang && ctest --preset dev-clang

asan tsan:
	cmake --preset $@ && cmake --build --preset $@ && ctest --preset $@

coverage:
	cmake --preset $@ && cmake --build --preset $@ && ctest --preset $@
	python3 tests/coverage.py build/coverage

# Each target for FUZZ_SECONDS; what it finds is left in build/fuzz, new inputs are not kept.
fuzz:
	cmake --preset fuzz && cmake --build --preset fuzz && ctest --preset fuzz
	tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

lint:
	cmake --preset dev && cmake --build --preset dev && ctest --preset dev -L lint

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

bench: all
	python3 tests/bench/run.py

# The pages that come from tables: docs/CONFIG.md.
docs:
	cmake --preset dev && cmake --build --preset dev --target test_config_docs
	CONFIG_DOCS_WRITE=1 build/dev/tests/unit/test_config_docs

VERSION = $(shell sed -n 's/^project(chmux VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
dist:
	mkdir -p dist
	git archive --format=tar.gz --prefix=chmux-$(VERSION)/ -o dist/chmux-$(VERSION).tar.gz HEAD

install: all
	cmake --install build/release

clean:
	rm -rf build dist
