# What can be done here; `make` alone tells. Works on a Debian machine that has only Rust (and make): what else
# is needed is installed with apt, and only if it is missing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# The demonstration: any folder of manifests will do.
FOLDER ?= fixtures/demo

export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(HOME)/.cargo/bin
export DEBIAN_FRONTEND := noninteractive

# Programs, each with the Debian package that has it.
BUILD := cc:build-essential
DEMO := $(BUILD) iptables-legacy-restore:iptables iptables-nft-restore:iptables ip:iproute2
BENCH := $(DEMO) ipset:ipset ipvsadm:ipvsadm conntrack:conntrack modprobe:kmod linux.uml:user-mode-linux
QEMU := qemu-system-x86_64:qemu-system-x86 busybox:busybox-static depmod:kmod
TEST := $(BENCH) nft:nftables mandoc:mandoc $(QEMU)

.PHONY: help demo test bench lint bless deb qemu

help: ## Tell what can be done
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Watch connections go through Services in a throwaway cluster (root; FOLDER=… for your own manifests)
	$(call as_root,makes network namespaces and writes rules in them)
	$(call install,$(DEMO))
	$(CARGO) build --locked --bin portcullis
	"$${CARGO_TARGET_DIR:-target}/debug/portcullis" lab run $(FOLDER)

test: ## Run all tests, real packets included (root)
	$(call as_root,makes network namespaces and writes rules in them)
	$(call install,$(TEST))
	$(fetch_kernel)
	@cargo nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest
	$(CARGO) nextest run --locked --workspace
	$(CARGO) test --locked --workspace --doc

bench: ## Measure syncs of Services and of policies beside a bare tool or netlink loop, and packets (root)
	$(call as_root,makes network namespaces and writes rules in them)
	$(call install,$(BENCH))
	$(CARGO) bench --locked --bench services
	$(CARGO) bench --locked --bench policies

deb: ## Make a Debian package, in target/debian
	$(call install,$(BUILD))
	@cargo deb --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deb
	$(CARGO) build --locked --release --bin portcullis
	rm -rf target/package && mkdir -p target/package/man
	target/release/portcullis man --all-to target/package/man
	target/release/portcullis completions bash >target/package/portcullis.bash
	target/release/portcullis completions zsh >target/package/_portcullis
	target/release/portcullis completions fish >target/package/portcullis.fish
	$(CARGO) deb --locked --no-build

qemu: ## Fetch the kernel that some tests boot, to run them without make
	$(call install,$(QEMU))
	$(fetch_kernel)

bless: ## Write the tables of policies and the pages that tests compare with anew; then read the difference
	$(call install,$(BUILD))
	BLESS=1 $(CARGO) test --locked --test golden_policies tables_are_the_recorded_ones
	BLESS=1 $(CARGO) test --locked --lib is_written_from

lint: ## Check format and lints
	$(call install,$(BUILD))
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Ends with the way out unless root runs this. $(1): why root is needed.
define as_root
@if [ "$$(id -u)" -ne 0 ]; then \
	echo 'make $@ $(1), and so needs root. This machine'"'"'s own rules stay as they are. As another user:' >&2; \
	echo '    sudo env "PATH=$$PATH" make $@' >&2; \
	exit 1; \
fi
endef

# Fetches the kernel that machines of QEMU boot, into the folder where the tests look for it.
define fetch_kernel
lab/qemu/kernel.sh "$${CARGO_TARGET_DIR:-target}/qemu-kernel"
endef

# Installs the packages of those programs that are missing. $(1): program:package …
define install
@missing=(); \
for pair in $(1); do command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}"); done; \
if [ "$${#missing[@]}" -gt 0 ]; then \
	if [ "$$(id -u)" -ne 0 ]; then echo "please install, as root: apt-get install $${missing[*]}" >&2; exit 1; fi; \
	apt-get update -q && apt-get install -qy --no-install-recommends "$${missing[@]}"; \
fi
endef
