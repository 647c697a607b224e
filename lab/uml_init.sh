#!/bin/sh
# The first process of a machine in user-mode Linux, whose root is the root of the host: makes fresh whatever is
# written to, loads the modules, runs the program, and turns the machine off. It lies in the machine's folder on the
# host, beside what is to run.
folder=${0%/*}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/tmp /run/uml/bin /run/uml/lib/modules /dev/shm
mount -t tmpfs tmpfs /dev/shm
export PATH="/run/uml/bin:$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
export TMPDIR=/run/tmp

# This kernel's nf_tables has no families ip and ip6, so iptables is the legacy tool.
for tool in iptables ip6tables; do
    for action in '' -save -restore; do ln -s /usr/sbin/xtables-legacy-multi "/run/uml/bin/$tool$action"; done
done

# The modules lie where only user-mode Linux looks; programs, and the kernel itself, must look there, too.
ln -s "/usr/lib/uml/modules/$(uname -r)" /run/uml/lib/modules/
printf '#!/bin/sh\nexec "%s" -d /run/uml "$@"\n' "$(PATH=${PATH#*:} command -v modprobe)" >/run/uml/bin/modprobe
chmod +x /run/uml/bin/modprobe
echo /run/uml/bin/modprobe >/proc/sys/kernel/modprobe
modprobe -a \
    ipv6 dummy veth bridge br_netfilter tun \
    ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_lblc ip_vs_lblcr ip_vs_sh ip_vs_dh ip_vs_mh ip_vs_sed \
    ip_vs_nq ip_vs_fo ip_vs_ovf \
    ip_set ip_set_bitmap_port ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip ip_set_hash_ipportnet \
    ip_set_hash_net \
    nf_conntrack nf_conntrack_netlink nf_nat nfnetlink_acct \
    iptable_nat iptable_filter iptable_mangle ip6table_nat ip6table_filter ip6table_mangle \
    xt_set xt_comment xt_MASQUERADE xt_conntrack xt_statistic xt_ipvs xt_mark xt_addrtype xt_nfacct xt_nat \
    xt_tcpudp xt_multiport xt_recent xt_limit xt_physdev xt_REDIRECT xt_sctp ipt_REJECT ip6t_REJECT

ip link set lo up
ulimit -n 65536
# The console is for the program; what breaks the kernel is told there, too.
echo 2 >/proc/sys/kernel/printk
echo 'portcullis-uml: the program begins'
sh "$folder/run" </dev/null
status=$?
echo "$status" >"$folder/status"
echo "portcullis-uml: the program ended with status $status"
sync
echo o >/proc/sysrq-trigger
# Turning off takes a moment, and a machine whose first process ends panics.
sleep 60
