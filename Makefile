# make run      bring up the controller with an emulated hybrid network (ARGS="--for 30" and the like are passed on)
# make test     everything that proves it works, in under 8 minutes
# make check    ruff, mypy --strict, import layers
# make bench    speed, beside the peers
# make soak     the campaigns of make test in full

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SLICE := --ignore=tests/benchmarks -m "not soak"

.PHONY: run test check bench soak clean
.DELETE_ON_ERROR:

run: $(VENV)/.run
	@exec $(BIN)/bellhop up sandbox $(ARGS)

test: $(VENV)/.test
	$(MAKE) --no-print-directory check
# switches, hosts and controllers are real and have to be in time: what was not beside three others is asked again alone, and both are told
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(SLICE) || $(BIN)/pytest -q --last-failed --last-failed-no-failures none $(SLICE)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/pytest -q tests/benchmarks -m "not soak" -s

soak: $(VENV)/.test
	$(BIN)/pytest -q -m "soak or not soak" --hypothesis-profile=soak

$(VENV)/.run: pyproject.toml deploy/prepare.sh
	@sh deploy/prepare.sh run

$(VENV)/.test: pyproject.toml deploy/prepare.sh
	@sh deploy/prepare.sh test

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
