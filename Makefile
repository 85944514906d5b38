# make demo   on a fresh machine: environment, a small sample, picks, a report to look at
# make test   everything the tests need, then style, types, import layers and tests

BIN := .venv/bin
DEMO := demo
WORKERS ?= 2

.PHONY: demo test check docs site weights clean

demo:
	@scripts/environment plots
	@test -d $(DEMO)/micrographs || $(BIN)/python -m cryopick.simulation.sample $(DEMO)
	$(BIN)/cryopick pick $(DEMO)/micrographs -o $(DEMO)/run
	$(BIN)/cryopick evaluate $(DEMO)/run --truth $(DEMO)/truth --diameter 70px
	@echo
	@echo "Open $(DEMO)/run/report.html in a browser. All results: $(DEMO)/run/"

test:
	@scripts/environment dev
	@scripts/relion
	@scripts/chromium
	@scripts/slurm
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check:
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs:
	@scripts/environment dev
	$(BIN)/python -m cryopick.pickers.catalogue README.md
	$(BIN)/python docs/make_picture.py docs/picture.jpg

# the documentation, to open as build/site/index.html; also in the tests
site:
	@scripts/environment dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Open build/site/index.html in a browser"

# train every shipped weight file again; general takes nearly two hours, each other up to an hour on 2 CPU cores with bfloat16 units
weights:
	@scripts/environment dev
	$(BIN)/cryopick train general --preset small -o runs/general --resume
	cp runs/general/weights.safetensors src/cryopick/weights/general.safetensors
	cp runs/general/weights.json src/cryopick/weights/general.json
	$(BIN)/cryopick train cryosegnet --preset small -o runs/cryosegnet --resume
	cp runs/cryosegnet/weights.safetensors src/cryopick/weights/cryosegnet.safetensors
	cp runs/cryosegnet/weights.json src/cryopick/weights/cryosegnet.json
	$(BIN)/cryopick train cryosegnet --preset sam -o runs/cryosegnet-sam --resume
	cp runs/cryosegnet-sam/weights.safetensors src/cryopick/weights/cryosegnet_sam.safetensors
	cp runs/cryosegnet-sam/weights.json src/cryopick/weights/cryosegnet_sam.json
	$(BIN)/cryopick train cryotransformer --preset small -o runs/cryotransformer --resume
	cp runs/cryotransformer/weights.safetensors src/cryopick/weights/cryotransformer.safetensors
	cp runs/cryotransformer/weights.json src/cryopick/weights/cryotransformer.json
	$(BIN)/cryopick train cryoemmae --preset small -o runs/cryoemmae --resume
	cp runs/cryoemmae/weights.safetensors src/cryopick/weights/cryoemmae.safetensors
	cp runs/cryoemmae/weights.json src/cryopick/weights/cryoemmae.json
	$(BIN)/cryopick train segmentation-crf --preset small -o runs/segmentation-crf --resume
	cp runs/segmentation-crf/weights.safetensors src/cryopick/weights/segmentation-crf.safetensors
	cp runs/segmentation-crf/weights.json src/cryopick/weights/segmentation-crf.json
	$(BIN)/cryopick simulate -o runs/consensus-data --structure random --proteins 110 --count 110 --size 1024x1024 --seed 70002
	$(BIN)/python -m cryopick.pickers.consensus.fit runs/consensus-data -o runs/consensus
	cp runs/consensus/weights.safetensors src/cryopick/weights/consensus.safetensors
	cp runs/consensus/weights.json src/cryopick/weights/consensus.json

clean:
	rm -rf .venv $(DEMO)
