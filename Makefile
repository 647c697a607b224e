# Build, test and development tasks; `make` lists them. Works on a Debian machine with only Rust and make: missing tools are
# installed with apt.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Folder of manifests for `make demo`.
FOLDER ?= fixtures/demo
# Folder of the program of this machine's image, which is linked statically.
STATIC = "$${CARGO_TARGET_DIR:-target}/static/$$(deploy/triple)/release"
# Architectures of a release, in Debian's words.
NATIVE = $(shell dpkg --print-architecture)
ARCHITECTURES ?= $(NATIVE)

export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(HOME)/.cargo/bin
export DEBIAN_FRONTEND := noninteractive

# Required programs as PROGRAM:DEBIAN-PACKAGE.
BUILD := cc:build-essential
DEMO := $(BUILD) iptables-legacy-restore:iptables iptables-nft-restore:iptables ip:iproute2
BENCH := $(DEMO) ipset:ipset ipvsadm:ipvsadm conntrack:conntrack modprobe:kmod linux.uml:user-mode-linux
QEMU := qemu-system-x86_64:qemu-system-x86 busybox:busybox-static depmod:kmod
IMAGE := buildah:buildah mmdebstrap:mmdebstrap getcap:libcap2-bin readelf:binutils
# For programs and images of other architectures, by architecture.
CROSS := arch-test:arch-test
CROSS_arm64 := $(CROSS) aarch64-linux-gnu-gcc:crossbuild-essential-arm64 qemu-aarch64-static:qemu-user-static
CROSS_amd64 := $(CROSS) x86_64-linux-gnu-gcc:crossbuild-essential-amd64 qemu-x86_64-static:qemu-user-static
FOREIGN = $(filter-out $(NATIVE),$(ARCHITECTURES))
# For the download of the programs that tests run.
TOOLS := pip3:python3-pip unzip:unzip
UNIT := $(BUILD) $(TOOLS) mandoc:mandoc zsh:zsh fish:fish systemd-analyze:systemd
# Tests of netlink/ that run under valgrind within minutes.
MEMCHECK := drift generic nf_tables nfacct tables
POD_NETWORK := ip:iproute2 ping:iputils-ping /usr/lib/cni/portmap:containernetworking-plugins /lib/systemd/systemd-networkd:systemd dbus-daemon:dbus-daemon
BROWSER := $(BUILD) chromium:chromium ip:iproute2 iptables-nft-restore:iptables
# A container runtime, a static shell for its containers, and a client of HTTP/2.
RUNTIME := containerd:containerd ctr:containerd runc:runc busybox:busybox-static curl:curl
TEST := $(BENCH) $(UNIT) nft:nftables setcap:libcap2-bin $(QEMU) $(BROWSER) $(POD_NETWORK) $(RUNTIME)

# Duration of each target of `make fuzz`, of `make chaos` and of `make soak`.
fuzz: SECONDS ?= 60
chaos: SECONDS ?= 600
soak: SECONDS ?= 3600

.PHONY: help demo test test-unit fuzz chaos soak memcheck bench lint bless screenshots deb sbom image release reproducible qemu tools

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Test connections to Services in a throwaway cluster (root; FOLDER=… for your own manifests)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(DEMO))
	$(CARGO) build --locked -p portcullis -p portcullis-lab --bin portcullis --bin portcullis-lab
	"$${CARGO_TARGET_DIR:-target}/debug/portcullis" lab run $(FOLDER)

test: ## Run all tests, including those with real packets (root)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(TEST))
	$(fetch_kernel)
	$(fetch_tools)
	@cargo nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest
	$(CARGO) nextest run --locked --workspace
	$(CARGO) test --locked --workspace --doc

test-unit: ## Run the tests that need neither root nor other machines; under a minute once built
	$(call install,$(UNIT))
	$(fetch_tools)
	@cargo nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest
	@# Properties are tested with 64 cases each; `make test` runs four times as many.
	PROPTEST_CASES=$${PROPTEST_CASES:-64} $(CARGO) nextest run --locked --workspace --profile unit

fuzz: ## Fuzz each target for a minute (SECONDS=…, TARGETS=… for some of them)
	$(call install,$(BUILD))
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked --debug cargo-fuzz
	fuzz/run.sh $(SECONDS) $(TARGETS)

chaos: ## Test the daemon with random clusters and changes against a model, for SECONDS=600; CHAOS_SEED=… for a first seed (root)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(TEST))
	CHAOS_SECONDS='$(SECONDS)' $(CARGO) test --locked --test chaos -- random::

soak: ## Change objects under traffic in all modes, SECONDS=3600 in total; fails if connections or memory are lost (root)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(TEST))
	SOAK_SECONDS='$(SECONDS)' $(CARGO) test --locked --test chaos -- soak:: --test-threads=1

memcheck: ## Run the tests of code with system calls under valgrind, which checks their buffers (root)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(TEST) valgrind:valgrind)
	CARGO_TARGET_$(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER='valgrind -q --error-exitcode=9' \
		$(CARGO) test --locked -p portcullis-netlink $(MEMCHECK:%=--test %)

bench: ## Measure Services, policies and the pod network against a bare tool or netlink loop, and the local API (root)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(BENCH) $(POD_NETWORK) nft:nftables)
	$(CARGO) bench --locked --bench services
	$(CARGO) bench --locked --bench policies
	$(CARGO) bench --locked --bench large_cluster
	$(CARGO) bench --locked --bench observe
	$(CARGO) bench --locked --bench local_api
	deploy/build-release --static -p portcullis --bin portcullis
	$(CARGO) bench --locked --package portcullis-podnet --bench pod_network -- \
		--plugin "$${CARGO_TARGET_DIR:-target}/static/$$(deploy/triple)/release/portcullis"
	$(CARGO) run --locked --release --package portcullis-podnet --example node_route_cost

deb: ## Build the Debian packages portcullis and portcullis-lab in target/debian
	$(call install,$(BUILD))
	@cargo deb --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deb
	deploy/build-packages

sbom: ## Write the components of the programs to target/package/sbom (CycloneDX)
	$(call install,$(BUILD))
	$(install_cyclonedx)
	deploy/sbom target/package/sbom

image: ## Build the image, and the sandbox image, around the release program, as OCI archives in target/package (root)
	$(call as_root,builds a root file system)
	$(call install,$(BUILD) $(IMAGE))
	deploy/build-release --static -p portcullis --bin portcullis
	REVISION="$$(git rev-parse HEAD)" deploy/image/build $(STATIC)/portcullis \
		target/package/portcullis.oci.tar target/package/portcullis-pause.oci.tar

release: ## Build programs, packages, image, chart, SBOM and checksums in target/release-files (root; ARCHITECTURES='amd64 arm64' for both)
	$(call as_root,builds a root file system)
	$(call install,$(BUILD) $(IMAGE) $(TOOLS) $(foreach architecture,$(FOREIGN),$(CROSS_$(architecture))))
	$(install_cyclonedx)
	@cargo deb --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deb
	$(fetch_tools)
	@for architecture in $(FOREIGN); do rustup target add "$$(deploy/triple "$$architecture")"; done
	deploy/build-packages $(ARCHITECTURES)
	for architecture in $(ARCHITECTURES); do \
		deploy/build-release --static --target "$$(deploy/triple "$$architecture")" -p portcullis --bin portcullis; \
	done
	deploy/release target/release-files $(ARCHITECTURES)

reproducible: ## Build the program in two folders, and compare; up to two release builds
	$(call install,$(BUILD) strings:binutils)
	.ci/reproducible

qemu: ## Fetch the kernel that some tests boot, for running them without make
	$(call install,$(QEMU))
	$(fetch_kernel)

tools: ## Fetch the programs that some tests run (helm, kubectl, promtool, NetworkManager), for running them without make
	$(call install,$(TOOLS))
	$(fetch_tools)

bless: ## Regenerate the golden files and docs pages that tests compare with; then review the diff
	$(call install,$(BUILD))
	BLESS=1 $(CARGO) test --locked --test golden_policies rendered_table_matches_the_golden_file
	BLESS=1 $(CARGO) test --locked --test nftables tables_equal_golden_files
	BLESS=1 $(CARGO) test --locked --lib is_written_from
	BLESS=1 $(CARGO) test --locked --test deploy is_written_from

screenshots: ## Take the pictures of docs/status-page.md (root)
	$(call as_root,creates network namespaces and writes rules in them)
	$(call install,$(BROWSER))
	SCREENSHOTS="$(CURDIR)/docs/images" $(CARGO) test --locked --test status_page

lint: ## Check formatting, lints, links in code documentation, and dependencies
	$(call install,$(BUILD))
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items
	@# A debug build of cargo-deny takes less than half the time of a release build.
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked --debug cargo-deny
	$(CARGO) deny --locked check licenses bans sources

# Fails with instructions unless run as root. $(1): the reason.
define as_root
@if [ "$$(id -u)" -ne 0 ]; then \
	echo 'make $@ $(1), which needs root. It does not change the rules of this machine. As another user, run:' >&2; \
	echo '    sudo env "PATH=$$PATH" make $@' >&2; \
	exit 1; \
fi
endef

# Debug builds of tools take less than half the time of release builds.
define install_cyclonedx
@$(CARGO) cyclonedx --version >/dev/null 2>&1 || $(CARGO) install --locked --debug cargo-cyclonedx
endef

# Downloads the kernel for QEMU machines to the folder where the tests expect it.
define fetch_kernel
machines/qemu/kernel.sh "$${CARGO_TARGET_DIR:-target}/qemu-kernel"
endef

# Downloads the programs that tests run to the folder where they expect them.
define fetch_tools
machines/tools/fetch.sh "$${CARGO_TARGET_DIR:-target}/test-tools"
endef

# Installs the packages of missing programs. $(1): PROGRAM:PACKAGE …
define install
@missing=(); \
for pair in $(1); do command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}"); done; \
if [ "$${#missing[@]}" -gt 0 ]; then \
	if [ "$$(id -u)" -ne 0 ]; then echo "please install, as root: apt-get install $${missing[*]}" >&2; exit 1; fi; \
	apt-get update -q && apt-get install -qy --no-install-recommends "$${missing[@]}"; \
fi
endef
