//! A page for people.

use std::fmt::Write;

use serde_json::Value;

const HEAD: &str = "<!doctype html><meta charset=utf-8><title>page</title><style>\
body{font:16px/1.5 system-ui;margin:2em}section{border-left:3px solid #2a6;margin:1em 0;padding:0 1em}\
section.failed{border-color:#c33}small{color:#666}</style>";

/// The page as HTML: one section per service, those it called inside.
pub(crate) fn render(page: &Value) -> String {
    let mut out = String::from(HEAD);
    // Writing into a string cannot fail.
    let _ = section(&mut out, "", page, 200);
    out
}

fn section(out: &mut String, name: &str, page: &Value, status: u64) -> std::fmt::Result {
    let class = if (200..300).contains(&status) { "" } else { " class=failed" };
    let text = |key: &str| escape(page.get(key).and_then(Value::as_str).unwrap_or_default());
    write!(out, "<section{class}><h2>{} {}</h2>", escape(name), text("service"))?;
    write!(out, "<small>{} {} status {status}</small>", text("version"), text("cluster"))?;
    if !page.is_object() {
        write!(out, "<pre>{}</pre>", escape(&page.to_string()))?;
    }
    for (name, call) in page.get("calls").and_then(Value::as_object).into_iter().flatten() {
        let status = call.get("status").and_then(Value::as_u64).unwrap_or(0);
        let body = call.get("body").or_else(|| call.get("error")).unwrap_or(&Value::Null);
        section(out, name, body, status)?;
    }
    out.push_str("</section>");
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_nest_and_failures_show() {
        let page = json!({"service": "a", "calls": {
            "b": {"status": 200, "body": {"service": "b", "calls": {}}},
            "c": {"status": 503, "body": {"reason": "no_endpoint"}},
            "d": {"error": "connection refused"},
        }});
        let html = render(&page);
        assert_eq!(html.matches("<section").count(), 4);
        assert_eq!(html.matches("class=failed").count(), 2);
        assert!(html.contains("connection refused") && html.contains("status 503"));
    }

    #[test]
    fn what_others_say_is_text() {
        let page = json!({"service": "a", "calls": {"<b>": {"status": 200, "body": "<script>"}}});
        assert!(!render(&page).contains("<script>") && !render(&page).contains("<b>"));
    }
}
