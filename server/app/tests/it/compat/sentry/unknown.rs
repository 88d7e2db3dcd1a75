//! Check-ins of monitors that do not exist.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_check_ins_of_unknown_monitors_wait_no_longer_than_one() {
    let harness = harness::start().await;
    let mut body = String::from("{}\n");
    for number in 0..100 {
        let item = check_in(&format!("unknown-{number}"), "ok", "", &Value::Null);
        body.push_str(&framed("check_in", &item));
    }
    let sending = to_envelope(&harness, &harness.ping_key).body(body).send();

    let answer = tokio::time::timeout(harness::LIMIT, sending)
        .await
        .expect("an answer: 100 check-ins share the pauses of their request")
        .unwrap();

    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["errors"].as_array().unwrap().len(), 100);
    harness.stop().await;
}
