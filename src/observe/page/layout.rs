//! What all pages have in common: the document, its head, the navigation and the foot.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use maud::{DOCTYPE, Markup, html};

use super::assets::ASSETS;
use super::icons;
use crate::moment::Moment;
use crate::version;

/// A part of the site, as the navigation lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Overview,
    Services,
    Policies,
    Timeline,
    Sources,
    Explain,
}

impl Part {
    const ALL: [Part; 6] =
        [Part::Overview, Part::Services, Part::Policies, Part::Timeline, Part::Sources, Part::Explain];

    fn title(self) -> &'static str {
        match self {
            Part::Overview => "Overview",
            Part::Services => "Services",
            Part::Policies => "Policies",
            Part::Timeline => "Timeline",
            Part::Sources => "Sources",
            Part::Explain => "Explain",
        }
    }

    /// Returns its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Part::Overview => "/",
            Part::Services => "/services",
            Part::Policies => "/policies",
            Part::Timeline => "/timeline",
            Part::Sources => "/sources",
            Part::Explain => "/explain",
        }
    }
}

/// What the head of every page shows of the daemon.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The node.
    pub(super) node: String,
    /// The proxy mode.
    pub(super) mode: &'static str,
}

/// A page before its layout.
pub(super) struct Page {
    pub(super) title: String,
    /// The part that the navigation marks.
    pub(super) part: Option<Part>,
    /// The script replaces the content every few seconds.
    pub(super) refreshes: bool,
    pub(super) content: Markup,
}

impl Page {
    /// Returns the whole document as a response.
    pub(super) fn respond(self, status: StatusCode, identity: Option<&Identity>) -> Response {
        let document = self.document(identity, Moment::now());
        let mut response = document.into_string().into_response();
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response
    }

    pub(super) fn document(&self, identity: Option<&Identity>, now: Moment) -> Markup {
        let node = identity.map(|identity| identity.node.as_str()).unwrap_or_default();
        let assets = &*ASSETS;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) @if !node.is_empty() { " · " (node) } " · Portcullis" }
                    link rel="stylesheet" href=(assets.style.path);
                    link rel="icon" type="image/svg+xml" href=(assets.icon.path);
                    @if self.refreshes { script src=(assets.script.path) defer {} }
                }
                body {
                    a .skip href="#content" { "Skip to the content" }
                    header .masthead {
                        div .wide {
                            p .brand {
                                (icons::gate())
                                span { "Portcullis" }
                                @if let Some(Identity { node, mode }) = identity {
                                    span .node { (node) " · " (mode) }
                                }
                            }
                            nav aria-label="Pages" {
                                ul {
                                    @for part in Part::ALL {
                                        li {
                                            a href=(part.path()) aria-current=[self.marks(part)] { (part.title()) }
                                        }
                                    }
                                }
                            }
                            p #refresh .refresh data-refresh[self.refreshes] {
                                "As of " (now.wall().strftime("%H:%M:%S UTC"))
                            }
                        }
                    }
                    main #content .wide tabindex="-1" { (self.content) }
                    footer .wide {
                        div .foot {
                            p { (version::version()) ". This page reads what the daemon knows and changes nothing." }
                        }
                    }
                }
            }
        }
    }

    fn marks(&self, part: Part) -> Option<&'static str> {
        (self.part == Some(part)).then_some("page")
    }
}
