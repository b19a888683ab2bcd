# Thin: every target hands over to one tool. `make help` lists them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
# Set on some machines, it makes every import compile from source again.
unexport PYTHONDONTWRITEBYTECODE
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# uv does not read pip's find-links, where a CPU build of torch may lie.
LOCAL_WHEELS := $(shell python3 -m pip config get global.find-links 2>/dev/null || printenv PIP_FIND_LINKS)
ifneq ($(LOCAL_WHEELS),)
export UV_FIND_LINKS := $(LOCAL_WHEELS)
endif
LATEX := latexmk texlive-latex-base texlive-latex-recommended texlive-fonts-recommended

SLURM := munge slurmctld slurmd slurm-client slurmdbd mariadb-server-core mariadb-client-core

.PHONY: help setup latex reproduce test test-long test-faults test-slurm slurm-packages test-servers postgresql tracking-server lint paper site bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: .venv/ready latex ## install everything that is missing

.venv/ready: pyproject.toml requirements.lock.txt
	@echo "setting up .venv (about a minute)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geomem needs Python 3.11 or newer")'
	@python3 -m venv .venv || { echo "error: 'python3 -m venv' fails; on Debian: apt-get install python3-venv"; exit 1; }
	@python -m pip install -q --disable-pip-version-check uv
	@uv pip install -q --python .venv/bin/python -c requirements.lock.txt -e ".[dev]"
	@touch .venv/ready

# Where it may be installed it is; where not, everything but the PDF is made and one line says so.
latex:
	@command -v latexmk >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { \
	    echo "installing LaTeX (about a minute)"; \
	    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $(LATEX) >/dev/null; }; } \
	|| echo "no LaTeX: all but the PDF will be made; for it: sudo apt-get install $(LATEX)"

reproduce: setup ## the main job at the default scale: table 2, figures, PDF
	snakemake --config only=main

test: .venv/ready latex ## every test that needs neither root nor Slurm nor a GPU
	pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-long: .venv/ready latex ## whole studies, remotes, raters in a browser, every command of the docs
	pytest -q -n 2 --dist loadfile -m long tests/workflow tests/unit tests/raters

test-faults: .venv/ready latex ## damage and kills: every remedy is followed, every result compared
	pytest -q -n 2 --dist loadfile -m fault tests/faults tests/unit/test_training.py

test-slurm: .venv/ready slurm-packages ## as root: a real Slurm on this machine, and faults injected on it
	pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m slurm \
	  tests/slurm/test_profile.py tests/slurm/test_job_faults.py tests/slurm/test_daemon_faults.py

slurm-packages:
	@[ "$$(id -u)" = 0 ] || { echo "error: make test-slurm starts Slurm's daemons: run it as root"; exit 1; }
	@export PATH=$$PATH:/usr/sbin; missing=; \
	  for program in sbatch slurmctld slurmd slurmdbd munged mariadbd my_print_defaults; do \
	    command -v $$program >/dev/null || missing=yes; done; \
	  [ -z "$$missing" ] || { \
	    echo "installing Slurm"; apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive \
	    RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $(SLURM) >/dev/null; }

test-servers: .venv/ready postgresql ## tracking with a real MLflow server and PostgreSQL
	pytest -q -m server tests/servers

postgresql:
	@command -v pg_ctl >/dev/null || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { \
	    echo "installing PostgreSQL"; \
	    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends postgresql >/dev/null; }; } \
	|| { echo "no PostgreSQL; for it: sudo apt-get install postgresql"; exit 1; }

tracking-server: .venv/ready postgresql ## MLflow on loopback with PostgreSQL, data in data/tracking
	geomem track server

lint: .venv/ready ## ruff, mypy, snakefmt, codespell, snakemake --lint
	ruff check . && ruff format --check . && mypy && codespell
	snakefmt --check -l 100 Snakefile workflow/rules
	snakemake --lint

paper: setup ## the PDF from the results that are there
	snakemake -- paper/main.pdf

site: .venv/ready ## the results that are there as pages for a browser: site/index.html
	geomem site

bench: .venv/ready ## speed of the renderer, of clips and of the networks on this machine
	python benchmarks/render.py
	python benchmarks/windows.py
	python benchmarks/networks.py --scale tiny

lock: .venv/ready ## renew requirements.lock.txt from pyproject.toml
	env -u UV_FIND_LINKS -u PIP_FIND_LINKS uv pip compile -q --universal --python-version 3.11 \
	  --all-extras pyproject.toml -o requirements.lock.txt

clean: ## remove what the workflow made at every scale; tracked files stay
	rm -rf data/*/clips data/*/features data/*/training_state logs benchmarks/jobs
