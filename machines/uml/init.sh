#!/bin/sh
# First half of the init script of user-mode Linux.
kernels=/usr/lib/uml/modules
modules='
    ipv6 dummy veth bridge br_netfilter tun
    ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_lblc ip_vs_lblcr ip_vs_sh ip_vs_dh ip_vs_mh ip_vs_sed
    ip_vs_nq ip_vs_fo ip_vs_ovf
    ip_set ip_set_bitmap_port ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip ip_set_hash_ipportnet
    ip_set_hash_net
    nf_conntrack nf_conntrack_netlink nf_nat nfnetlink_acct
    iptable_nat iptable_filter iptable_mangle ip6table_nat ip6table_filter ip6table_mangle
    xt_set xt_comment xt_MASQUERADE xt_conntrack xt_statistic xt_ipvs xt_mark xt_addrtype xt_nfacct xt_nat
    xt_tcpudp xt_multiport xt_recent xt_limit xt_physdev xt_REDIRECT xt_sctp ipt_REJECT ip6t_REJECT'

prepare() {
    # This kernel's nf_tables has no families ip and ip6, so iptables is the legacy tool.
    for tool in iptables ip6tables; do
        for action in '' -save -restore; do ln -s /usr/sbin/xtables-legacy-multi "$tools/$tool$action"; done
    done
}
