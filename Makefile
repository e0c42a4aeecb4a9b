# Every target sets up what it needs, can be run twice, and says what it installs before it does.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: demo
demo: lab ## a maintenance day, a day of releases and one of patching on real components: start the lab and run them on it
	ansible-playbook -i inventories/lab worklog.maintenance.maintenance_day
	python -m tests.lab.release_day
	python -m tests.lab.patch_day

.PHONY: test
test: venv ## everything below that can fail, with a closing table
	@python tools/test_all.py

.PHONY: lab
lab: venv engine ## start the lab: load balancers, applications and databases in containers
	python tests/lab/lab.py up

.PHONY: lab-down
lab-down: ## remove the lab's containers and networks, nothing else
	python3 tests/lab/lab.py down

.PHONY: lint
lint: venv ## static checks: yamllint, ansible-lint, ruff, mypy, shellcheck, house rules
	@tools/lint

.PHONY: unit
unit: venv ## unit tests on Python 3.9 and on the newest
	@tools/unit

.PHONY: sanity
sanity: venv ## ansible-test sanity without ignores
	@tools/sanity

.PHONY: importer
importer: venv ## judge the built archive with the importer of Ansible Galaxy
	@tools/import-check

.PHONY: molecule
molecule: venv engine ## every Molecule scenario
	@tools/molecule

.PHONY: system
system: venv engine ## tests on new copies of the lab, through ansible-playbook and ansible-runner
	python -m pytest tests/system -n 3 --dist loadfile --no-loadscope-reorder --junitxml=build/reports/system.xml

.PHONY: again
again: venv engine
	python -m pytest tests/system --last-failed --last-failed-no-failures none --junitxml=build/reports/again.xml

.PHONY: soak
soak: venv engine ## long campaigns of faults from fixed seeds, with their counts
	KILLS=20 python -m pytest tests/system -m 'soak or campaign' -s --junitxml=build/reports/soak.xml

.PHONY: bench
bench: venv engine ## benchmarks, one after the other
	@tools/bench

.PHONY: docs
docs: venv ## check the documentation and build it as HTML in build/docs
	@tools/docs

.PHONY: dist
dist: venv ## build the collection's archive in build/dist
	@tools/dist

.PHONY: clean
clean: ## remove what was built or installed in this tree (.venv, .cache, build)
	rm -rf .venv .cache build

.PHONY: venv engine
venv:
	@tools/setup-venv
engine:
	@tools/setup-engine
