#!/usr/bin/env bash
# Downloads the kernel of QEMU machines: `kernel.sh FOLDER`. Debian's cloud kernel is not installed:
#
#   FOLDER/vmlinuz          the kernel
#   FOLDER/initramfs        busybox and the modules to mount the host's files
#   FOLDER/modules/VERSION  its modules
#   FOLDER/made-by          this script
#
# An existing folder is complete. It is created again when this script has changed; remove it to get the newest kernel.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
folder=$(realpath -m "$1")
self=$(realpath "$0")

mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
if cmp -s "$self" "$folder/made-by"; then exit; fi

if ldd "$(command -v busybox)" >/dev/null 2>&1; then
    echo "$0: this busybox is not static; please install busybox-static" >&2
    exit 1
fi

fresh=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/package" "$fresh/initramfs.d"

fetch() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p')
    # The default sandbox user of apt may lack permission to write here.
    [ -n "$package" ] && (cd "$fresh" && apt-get download -q -o APT::Sandbox::User="$(id -un)" "$package")
}
# Update missing or outdated package lists.
fetch || { apt-get update -q && fetch; }
dpkg-deb -x "$fresh"/*.deb "$fresh/package"
rm "$fresh"/*.deb
mv "$fresh"/package/boot/vmlinuz-* "$fresh/vmlinuz"
# Below /lib or /usr/lib, depending on the release of Debian.
modules=$(find "$fresh/package" -type d -path '*/lib/modules/*' -prune)
version=$(basename "$modules")
mkdir -p "$fresh/lib"
mv "$(dirname "$modules")" "$fresh/lib/modules"
rm -r "$fresh/package"
depmod -b "$fresh" "$version"
mv "$fresh/lib/modules" "$fresh/modules"
rmdir "$fresh/lib"

# The initramfs loads the modules for virtiofs in this order, and switches to the host's root.
cd "$fresh/initramfs.d"
mkdir bin dev host proc modules
cp "$(command -v busybox)" bin/busybox
number=10
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci fuse virtiofs; do
    file=$(find "$fresh/modules" -name "$module.ko*")
    case $file in
        *.xz) busybox xzcat "$file" >"modules/$number-$module.ko" ;;
        *) cp "$file" "modules/$number-$module.ko" ;;
    esac
    number=$((number + 1))
done
cat >init <<'INIT'
#!/bin/busybox sh
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t virtiofs host /host
/bin/busybox mount -t devtmpfs devtmpfs /host/dev
/bin/busybox mount -t proc proc /proc
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in portcullis.init=*) init=${word#*=} ;; esac
done
/bin/busybox umount /proc
exec /bin/busybox switch_root /host "$init"
INIT
chmod +x init
find . | busybox cpio -o -H newc >"$fresh/initramfs"
cd "$OLDPWD"
rm -r "$fresh/initramfs.d"

cp "$self" "$fresh/made-by"
chmod 755 "$fresh"
rm -rf "$folder"
mv "$fresh" "$folder"
trap - EXIT
