//! Session affinity: a client's connections stay with the endpoint that served it last.
//!
//! ```text
//! @affinity            client . cluster IP . protocol . port  →  endpoint        (written by the rules, with a timeout)
//! @affinity-endpoints           cluster IP . protocol . port  .  endpoint        (which of them may still serve)
//! ```
//! Both rules lay the registers out so that the keys of both sets, and what is learned, stand side by side.

use portcullis_netlink::nf_tables::{DynamicUpdate, Expression, LookupResult, Register, Rule};

use super::chain_id::{ChainId, View, translate};
use super::names::{AFFINITY, AFFINITY_ENDPOINTS, AFFINITY_LOCAL_ENDPOINTS};
use super::settings::Settings;

/// The rules that send a client back, or else somewhere new and remember it.
pub(super) fn rules(chain: &ChainId, settings: &Settings, seconds: u32) -> [Rule; 2] {
    let client = Register::FIRST;
    let service = client.after(settings.address().length());
    let valid = match chain.view {
        View::Cluster => AFFINITY_ENDPOINTS,
        View::Local => AFFINITY_LOCAL_ENDPOINTS,
    };
    let begin = || {
        let (rule, endpoint) = chain.load_service(Rule::new(), settings, service);
        (rule.load(&[settings.source()], client), endpoint)
    };
    let write = |rule: Rule, op: DynamicUpdate, endpoint: Register| {
        let timeout = (op != DynamicUpdate::Delete).then_some(u64::from(seconds) * 1000);
        rule.push(Expression::Dynamic {
            set: AFFINITY.into(),
            op,
            key: client,
            data: Some(endpoint),
            timeout,
        })
    };
    let look_up = |rule: Rule, set: &str, key: Register, result: LookupResult| {
        rule.push(Expression::Lookup { set: set.into(), key, result })
    };

    let (rule, endpoint) = begin();
    let rule = look_up(rule, AFFINITY, client, LookupResult::Data(endpoint));
    let rule = look_up(rule, valid, service, LookupResult::Found);
    let known = translate(write(rule, DynamicUpdate::Update, endpoint), settings, endpoint);

    let (rule, endpoint) = begin();
    let rule = chain.load_endpoint(rule, service, endpoint);
    // What is remembered and not valid any more would stay: an update changes the timeout only.
    let rule = write(rule, DynamicUpdate::Delete, endpoint);
    let new = translate(write(rule, DynamicUpdate::Update, endpoint), settings, endpoint);
    [known.remark("the same endpoint as before"), new.remark("any endpoint, remembered")]
}
