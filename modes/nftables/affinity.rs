//! Session affinity: a client's connections stay with the endpoint that served it last.
//!
//! ```text
//! @affinity   client . address . protocol . port  →  endpoint      written by the rules, gone after the timeout
//! ```
//! A client is remembered for each address (or node port) by which it comes. What is remembered of an endpoint that
//! serves no more is deleted by [`super::Proxier`], which reads the map for it only then.

use portcullis_netlink::nf_tables::{DynamicUpdate, Expression, Field, LookupResult, Register, Rule};

use super::chain_id::{ChainId, Front, translate};
use super::names::{AFFINITY, NODE_PORT_AFFINITY};
use super::settings::Settings;

/// The rules that send a client back, or else somewhere new and remember it.
pub(super) fn rules(chain: &ChainId, settings: &Settings, seconds: u32) -> [Rule; 2] {
    let set = match chain.front {
        Front::Address => AFFINITY,
        Front::NodePort => NODE_PORT_AFFINITY,
    };
    let mut client = vec![settings.source()];
    client.extend(chain.key(settings));
    let key = Register::FIRST;
    let endpoint = client.iter().fold(key, |at, field: &Field| at.after(field.length()));
    let remember = |rule: Rule| {
        let (op, timeout) = (DynamicUpdate::Update, Some(u64::from(seconds) * 1000));
        let data = Some(endpoint);
        translate(
            rule.load(&client, key).push(Expression::Dynamic { set: set.into(), op, key, data, timeout }),
            settings,
            endpoint,
        )
    };
    let known = Rule::new().load(&client, key).push(Expression::Lookup {
        set: set.into(),
        key,
        result: LookupResult::Data(endpoint),
    });
    let new = chain.load_endpoint(Rule::new(), settings, endpoint);
    [remember(known).remark("the same endpoint as before"), remember(new).remark("any endpoint, remembered")]
}
