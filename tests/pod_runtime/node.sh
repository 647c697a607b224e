# Process 1 of a node: private copies of the folders that a container runtime and the plugin write, then containerd.
# $1: a folder for containerd; $2: the program; $3: the network configuration, or nothing if a daemon writes it; $4: the sandbox image of
# the kubelet's side of containerd, or nothing if only its client starts containers.
set -eu
umask 022
mount --make-rprivate /
mkdir -p "$1/etc"
mount -t tmpfs -o mode=755 tmpfs "$1/etc"
cp -a /etc/. "$1/etc"
mount --bind "$1/etc" /etc
for folder in /run /opt /var/lib; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mkdir -p /opt/cni/bin /etc/cni/net.d
ip link set lo up
if [ -n "$3" ]; then
    mkdir -p /run/portcullis/pod-network
    ln -s "$2" /opt/cni/bin/portcullis
    ln -s portcullis /opt/cni/bin/loopback
    printf '%s\n' "$3" >/etc/cni/net.d/10-portcullis.conflist
    # The daemon of a node sets these.
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
fi

cat >"$1/config.toml" <<END
version = 2
root = "$1/root"
state = "$1/state"
[grpc]
address = "$1/containerd.sock"
END
if [ -n "$4" ]; then
    # The node has no cgroups of its own. The native snapshotter works on every file system.
    cat >>"$1/config.toml" <<END
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$4"
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
END
else
    # The client configures the network of the containers.
    sed -i '1a disabled_plugins = ["io.containerd.grpc.v1.cri"]' "$1/config.toml"
fi
containerd --config "$1/config.toml" --log-level warn >"$1/containerd.log" 2>&1 &
# Reaps the processes whose parents have ended.
wait
