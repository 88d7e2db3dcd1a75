//! The pages of the causes, as a person without an account sees them after following an alert's link.

use deadbeat_domain::incident::cause::Cause;
use reqwest::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

use crate::harness;

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_has_a_page_for_everybody_and_the_list_leads_there() {
    let harness = harness::start().await;
    let get = async |path: &str| {
        let answer = harness
            .client
            .get(format!("{}{path}", harness.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        answer.text().await.unwrap()
    };

    let list = get("/causes").await;

    for cause in Cause::ALL {
        let path = cause.page();
        assert!(
            list.contains(&format!("<a href=\"{path}\">{}</a>", cause.as_str())),
            "{path}"
        );
        let page = get(&path).await;
        assert!(page.contains(&format!("<h1>{}</h1>", cause.as_str())), "{path}");
        assert!(page.contains("<h2>What to type</h2>"), "{path}");
        assert!(!page.contains("<script") && !page.contains(" style="), "{path}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_cause_is_not_found_and_nothing_but_reading_is_allowed() {
    let harness = harness::start().await;
    let ask = async |method: Method, path: &str| {
        let request = harness.client.request(method, format!("{}{path}", harness.url));
        request.send().await.unwrap()
    };

    for path in [
        "/causes/NOTHING",
        "/causes/beat_down",
        "/causes/BEAT_DOWN.md",
        "/causes/README",
    ] {
        let answer = ask(Method::GET, path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        assert!(
            answer.text().await.unwrap().contains("There is no such cause"),
            "{path}"
        );
    }
    for path in ["/causes", "/causes/BEAT_DOWN"] {
        let head = ask(Method::HEAD, path).await;
        assert_eq!(head.status(), StatusCode::OK);
        let post = ask(Method::POST, path).await;
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(post.headers()[ALLOW], "GET, HEAD");
    }
    harness.stop().await;
}
