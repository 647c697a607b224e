//! Tests of the pages without a browser. `tests/status_page` has those with one.

mod markup;
mod samples;

use serde_json::Value;

use self::samples::{
    HOSTILE, broken, healthy, report, report_of, status, timeline, timeline_of, with_hostile_names,
};
use super::icons::Level;
use super::layout::{Identity, Page};
use super::query::Query;
use super::verdict::Banner;
use super::{explain, overview, service, services, sources};

/// Returns all pages of these documents, with their names.
fn pages(status_of: Value, report: Value, timeline: Value, search: &str) -> Vec<(&'static str, Page)> {
    let (status, report, entries) = (status(status_of), report_of(report), timeline_of(timeline));
    let query = super::query::link(
        "",
        [("q", search), ("namespace", search), ("from", search), ("to", search), ("page", "2")],
    );
    let request = Query::parse(query.strip_prefix('?'));
    let connection = explain::Connection::new(&request);
    vec![
        ("overview", overview::page(&status, Ok(&report))),
        ("overview without report", overview::page(&status, Err(search))),
        ("services", services::page(&request, Ok(&report))),
        ("no services", services::page(&request, Err(search))),
        ("service", service::page(&report.items[1], &report)),
        ("service that does not answer", service::page(&report.items[2], &report)),
        ("sources", sources::page(&status)),
        ("timeline", super::timeline::page(&entries, false)),
        ("explain", explain::page(&connection, None)),
        ("explained", explain::page(&connection, Some(&Ok(Ok((format!("DENIED  {search}\n"), false)))))),
        ("not explained", explain::page(&connection, Some(&Ok(Err(search.to_owned()))))),
    ]
}

fn document(page: Page, node: &str) -> String {
    let identity = Identity { node: node.to_owned(), mode: "nftables" };
    page.document(Some(&identity), crate::moment::Moment::now()).into_string()
}

#[test]
fn pages_are_well_formed_and_accessible() {
    for (case, page) in pages(healthy(), report(), timeline(), "shop") {
        markup::check(case, &document(page, "node-a"));
    }
    for (case, page) in pages(broken(), report(), timeline(), "") {
        markup::check(case, &document(page, "node-a"));
    }
}

#[test]
fn no_name_or_message_becomes_markup() {
    let hostile = [broken(), report(), timeline()].map(with_hostile_names);
    let [status, report, timeline] = hostile;
    for (case, page) in pages(status, report, timeline, HOSTILE) {
        let html = document(page, HOSTILE);
        markup::check(case, &html);
        assert!(html.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;"), "{case}: shows no name");
        assert!(!html.contains("<script>") && !html.contains("<img"), "{case}: {html}");
    }
}

#[test]
fn verdict_follows_from_the_status() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = healthy();
        change(&mut value);
        let banner = Banner::new(&status(value));
        (banner.level, banner.headline)
    };
    type Row<'a> = (&'a str, &'a dyn Fn(&mut Value), Level, &'a str);
    let rows: [Row<'_>; 6] = [
        ("healthy", &|_| {}, Level::Good, "Healthy"),
        (
            "a warning",
            &|status| {
                status["problems"] = broken()["problems"].as_array().expect("problems")[1..].to_vec().into()
            },
            Level::Warning,
            "Healthy, with 1 warning",
        ),
        ("unhealthy", &|status| *status = broken(), Level::Bad, "Unhealthy"),
        (
            "starting",
            &|status| status["rules"][0]["lastSuccess"] = Value::Null,
            Level::Warning,
            "Starting: not all rules are synced yet",
        ),
        (
            "the loop hangs",
            &|status| {
                status["eventLoop"]["responded"] = false.into();
                status["eventLoop"]["error"] = "the event loop did not respond within 1s".into();
            },
            Level::Warning,
            "Not known: the event loop does not respond",
        ),
        (
            "deleted node",
            &|status| status["nodeEligible"] = false.into(),
            Level::Warning,
            "Healthy, with 1 warning",
        ),
    ];
    for (case, change, level, headline) in rows {
        assert_eq!(with(change), (level, headline.to_owned()), "{case}");
    }
}

#[test]
fn pages_of_services_are_linked() {
    let mut value = report();
    value["total"] = 120.into();
    value["offset"] = 50.into();
    let page = |query: &str, value: Value| {
        let request = Query::parse(Some(query));
        document(services::page(&request, Ok(&report_of(value))), "node-a")
    };
    let html = page("q=we%26b&problems=yes&page=2", value.clone());
    assert!(html.contains("51 to 53 of 120 Services"), "{html}");
    for link in ["?q=we%26b&amp;problems=yes&amp;page=1\"", "&amp;page=3\" rel=\"next\""] {
        assert!(html.contains(link), "{link} is not in {html}");
    }
    value["items"] = Value::Array(Vec::new());
    assert!(page("page=9", value).contains("There is no such page of the result."));
    let query = services::query(&Query::parse(Some("page=3&q=web&problems=yes")));
    assert_eq!(
        (query.offset, query.limit, query.search.as_deref(), query.problems),
        (100, Some(50), Some("web"), true)
    );
}
