//! Constants of `linux/netfilter/nf_tables.h`: messages, attributes, expressions.

/// Messages (`NFT_MSG_*`).
pub(super) mod messages {
    pub(in super::super) const NEWTABLE: u8 = 0;
    pub(in super::super) const GETTABLE: u8 = 1;
    pub(in super::super) const DELTABLE: u8 = 2;
    pub(in super::super) const NEWCHAIN: u8 = 3;
    pub(in super::super) const GETCHAIN: u8 = 4;
    pub(in super::super) const DELCHAIN: u8 = 5;
    pub(in super::super) const NEWRULE: u8 = 6;
    pub(in super::super) const GETRULE: u8 = 7;
    pub(in super::super) const DELRULE: u8 = 8;
    pub(in super::super) const NEWSET: u8 = 9;
    pub(in super::super) const GETSET: u8 = 10;
    pub(in super::super) const DELSET: u8 = 11;
    pub(in super::super) const NEWSETELEM: u8 = 12;
    pub(in super::super) const GETSETELEM: u8 = 13;
    pub(in super::super) const DELSETELEM: u8 = 14;
    pub(in super::super) const NEWGEN: u8 = 15;
    pub(in super::super) const NEWOBJ: u8 = 18;
    pub(in super::super) const GETOBJ: u8 = 19;
    pub(in super::super) const DELOBJ: u8 = 20;
    pub(in super::super) const GETFLOWTABLE: u8 = 23;
}

/// Attributes (`NFTA_*`).
pub(super) mod attributes {
    macro_rules! numbers {
        ($($name:ident = $number:literal),* $(,)?) => { $(pub(in super::super) const $name: u16 = $number;)* };
    }
    numbers! {
        LIST_ELEM = 1, EXPR_NAME = 1, EXPR_DATA = 2,
        TABLE_NAME = 1, TABLE_FLAGS = 2, TABLE_USERDATA = 6,
        CHAIN_TABLE = 1, CHAIN_NAME = 3, CHAIN_HOOK = 4, CHAIN_POLICY = 5, CHAIN_TYPE = 7,
        CHAIN_FLAGS = 10, CHAIN_USERDATA = 12, HOOK_NUMBER = 1, HOOK_PRIORITY = 2,
        RULE_TABLE = 1, RULE_CHAIN = 2, RULE_HANDLE = 3, RULE_EXPRESSIONS = 4, RULE_USERDATA = 7,
        SET_TABLE = 1, SET_NAME = 2, SET_FLAGS = 3, SET_KEY_TYPE = 4, SET_KEY_LEN = 5, SET_DATA_TYPE = 6,
        SET_DATA_LEN = 7, SET_DESC = 9, SET_ID = 10, SET_TIMEOUT = 11, SET_USERDATA = 13,
        SET_EXPR = 17, SET_EXPRESSIONS = 18,
        SET_DESC_SIZE = 1, SET_DESC_CONCAT = 2, SET_FIELD_LEN = 1,
        ELEMENTS_TABLE = 1, ELEMENTS_SET = 2, ELEMENTS = 3,
        ELEMENT_KEY = 1, ELEMENT_DATA = 2, ELEMENT_FLAGS = 3, ELEMENT_TIMEOUT = 4, ELEMENT_USERDATA = 6, ELEMENT_EXPR = 7,
        ELEMENT_OBJREF = 9, ELEMENT_KEY_END = 10, ELEMENT_EXPRESSIONS = 11,
        FLOWTABLE_TABLE = 1, FLOWTABLE_NAME = 2,
        OBJ_TABLE = 1, OBJ_NAME = 2, OBJ_TYPE = 3, OBJ_DATA = 4, OBJ_USERDATA = 8,
        COUNTER_BYTES = 1, COUNTER_PACKETS = 2,
        GEN_ID = 1, GEN_PROC_PID = 2, GEN_PROC_NAME = 3,
        PAYLOAD_DREG = 1, PAYLOAD_BASE = 2, PAYLOAD_OFFSET = 3, PAYLOAD_LEN = 4,
        META_DREG = 1, META_KEY = 2, META_SREG = 3,
        CT_DREG = 1, CT_KEY = 2, CT_DIRECTION = 3, CT_SREG = 4,
        FIB_DREG = 1, FIB_RESULT = 2, FIB_FLAGS = 3,
        NG_DREG = 1, NG_MODULUS = 2, NG_TYPE = 3, NG_OFFSET = 4,
        HASH_SREG = 1, HASH_DREG = 2, HASH_LEN = 3, HASH_MODULUS = 4, HASH_SEED = 5, HASH_TYPE = 7,
        IMMEDIATE_DREG = 1, IMMEDIATE_DATA = 2,
        CMP_SREG = 1, CMP_OP = 2, CMP_DATA = 3,
        RANGE_SREG = 1, RANGE_OP = 2, RANGE_FROM = 3, RANGE_TO = 4,
        BITWISE_SREG = 1, BITWISE_DREG = 2, BITWISE_LEN = 3, BITWISE_MASK = 4, BITWISE_XOR = 5, BITWISE_OP = 6,
        LOOKUP_SET = 1, LOOKUP_SREG = 2, LOOKUP_DREG = 3, LOOKUP_FLAGS = 5,
        DYNSET_SET = 1, DYNSET_OP = 3, DYNSET_SREG_KEY = 4, DYNSET_SREG_DATA = 5, DYNSET_TIMEOUT = 6,
        DYNSET_EXPR = 7, DYNSET_FLAGS = 9, DYNSET_EXPRESSIONS = 10,
        OBJREF_TYPE = 1, OBJREF_NAME = 2,
        LIMIT_RATE = 1, LIMIT_UNIT = 2, LIMIT_BURST = 3, LIMIT_TYPE = 4, LIMIT_FLAGS = 5,
        LOG_GROUP = 1, LOG_PREFIX = 2, LOG_SNAPLEN = 3, LOG_QUEUE_THRESHOLD = 4,
        REJECT_TYPE = 1, REJECT_CODE = 2,
        NAT_TYPE = 1, NAT_FAMILY = 2, NAT_ADDR_MIN = 3, NAT_ADDR_MAX = 4, NAT_PROTO_MIN = 5,
        NAT_PROTO_MAX = 6, NAT_FLAGS = 7,
        MASQ_FLAGS = 1, MASQ_PROTO_MIN = 2,
        XT_NAME = 1, XT_INFO = 3,
    }
}

pub(super) const FIB_SADDR: u32 = 1;
pub(super) const FIB_DADDR: u32 = 2;
pub(super) const FIB_IIF: u32 = 8;
pub(super) const FIB_PRESENT: u32 = 32;
pub(super) const FIB_RESULT_OIF: u32 = 1;
pub(super) const FIB_RESULT_ADDRTYPE: u32 = 3;
/// `IP_CT_DIR_ORIGINAL`.
pub(super) const CT_ORIGINAL: u8 = 0;
pub(super) const NG_RANDOM: u32 = 1;
pub(super) const HASH_JENKINS: u32 = 0;
pub(super) const LOOKUP_INVERTED: u32 = 1;
pub(super) const OBJECT_COUNTER: u32 = 1;
pub(super) const LIMIT_PACKETS: u32 = 0;
pub(super) const REJECT_ICMP: u32 = 0;
pub(super) const REJECT_TCP_RST: u32 = 1;
pub(super) const REJECT_ICMPX: u32 = 2;
/// `NFT_REJECT_ICMPX_PORT_UNREACH`.
pub(super) const ICMPX_PORT_UNREACHABLE: u8 = 1;
/// Returns `ICMP_PORT_UNREACH` or `ICMPV6_PORT_UNREACH`.
pub(super) fn port_unreachable(family: crate::Family) -> u8 {
    match family {
        crate::Family::V4 => 3,
        crate::Family::V6 => 4,
    }
}
pub(super) const NAT_DNAT: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
pub(super) const RANDOM_FULLY: u32 = 16;
/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`, which the kernel lists with each NAT expression.
pub(super) const NAT_IMPLIED: u32 = 1 | 2;
