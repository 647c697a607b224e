#!/bin/sh
# First half of the init script of QEMU machines. The kernel loads most modules on first use: those of nf_tables, iptables
# matches, links and sockets. These are the others, and those that daemons require.
read -r kernels <"${0%/*}/kernels"
modules='
    br_netfilter nf_conntrack ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_lblc ip_vs_lblcr ip_vs_sh ip_vs_dh
    ip_vs_mh ip_vs_sed ip_vs_nq ip_vs_fo ip_vs_ovf'

prepare() {
    # The devtmpfs of the kernel lacks these.
    ln -s /proc/self/fd /dev/fd
    ln -s fd/0 /dev/stdin
    ln -s fd/1 /dev/stdout
    ln -s fd/2 /dev/stderr
    mkdir -p /dev/pts
    mount -t devpts devpts /dev/pts
}
