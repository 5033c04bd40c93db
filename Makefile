# The build's entry points. `make` alone lists them.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin
# Outside the checkout, so that a fresh clone finds what an earlier one built.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/tidemill/target

# In shell, not $(shell): it must run after scripts/setup has installed what it can.
FEATURES = $$(scripts/setup --features)

.PHONY: help demo build release test lint clean-services
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

# Tidemill's own crates without optimisation, and no SQL server: the demo needs neither, and what `make test` builds again
# for them is small.
demo: ## build the binary alone, then run the demo: no server needed
	@scripts/setup
	CARGO_PROFILE_DEV_OPT_LEVEL=0 cargo build --package tidemill-cli --no-default-features --locked $(FEATURES)
	@"$(CARGO_TARGET_DIR)/debug/tidemill" demo

build: ## the tidemill binary, quickly
	@scripts/setup
	cargo build --workspace --locked $(FEATURES)

release: ## the tidemill binary, fast
	@scripts/setup
	cargo build --release --workspace --locked $(FEATURES)

test: ## every test, with a real Kafka, Schema Registry and S3 server where they can be had
	@scripts/test

lint: ## formatting and clippy, warnings refused
	@scripts/setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked $(FEATURES) -- -D warnings

clean-services: ## stop the test services and remove their data
	@scripts/services stop
