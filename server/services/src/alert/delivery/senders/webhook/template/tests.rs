use serde_json::{Value, json};

use super::bounds::FILTERS;
use super::*;

fn variables() -> Value {
    json!({
        "name": "nightly \"report\" </b>\\ & 日本\n",
        "count": 3,
        "half": 0.5,
        "yes": true,
        "nothing": null,
        "tags": ["prod", "a\"b"],
        "map": {"k": "v", "n": null},
        "long": "x".repeat(1_000),
        "many": (0..50).map(|n| json!({"name": format!("task-{n}"), "text": "y".repeat(200)})).collect::<Vec<_>>(),
    })
}

fn render(language: Language, source: &str) -> Result<String, Fault> {
    let work = || {
        let engine = Engine::new(language);
        engine.compile(source)?.render(&variables())
    };
    apart(work).unwrap()
}

fn fault(language: Language, source: &str) -> Fault {
    render(language, source).expect_err(source)
}

#[test]
fn a_value_is_written_for_its_place_in_json() {
    for (source, made) in [
        (
            r#"{"text": "Down: {{ name }}!"}"#,
            json!({"text": "Down: nightly \"report\" </b>\\ & 日本\n!"}),
        ),
        (
            r#"{"text": {{ name }}, "{{ name }}": 1}"#,
            json!({"text": "nightly \"report\" </b>\\ & 日本\n", "nightly \"report\" </b>\\ & 日本\n": 1}),
        ),
        (
            r#"[{{ count }}, {{ half }}, {{ yes }}, {{ nothing }}, {{ tags }}, {{ map }}]"#,
            json!([3, 0.5, true, null, ["prod", "a\"b"], {"k": "v", "n": null}]),
        ),
        (
            r#"["{{ count }} {{ half }} {{ yes }} [{{ nothing }}] {{ tags }}"]"#,
            json!([r#"3 0.5 true [] ["prod","a\"b"]"#]),
        ),
        // Quotes and backslashes of the template itself count.
        (
            r#"["\\{{ name }}", "\"{{ count }}\"", "{{ count }}\\"]"#,
            json!(["\\nightly \"report\" </b>\\ & 日本\n", "\"3\"", "3\\"]),
        ),
        (
            r#"[{% for tag in tags %}"{{ tag }}"{% if not loop.last %}, {% endif %}{% endfor %}]"#,
            json!(["prod", "a\"b"]),
        ),
        // Captured text is escaped when the template prints it.
        (
            r#"{% set title %}Down: {{ name|upper }}{% endset %}{"a": {{ title }}, "b": "<{{ title }}>"}"#,
            json!({"a": "Down: NIGHTLY \"REPORT\" </B>\\ & 日本\n", "b": "<Down: NIGHTLY \"REPORT\" </B>\\ & 日本\n>"}),
        ),
        (
            r#"["{% filter upper %}{{ tags[1] }}"{% endfilter %}"]"#,
            json!(["A\"B\""]),
        ),
        (
            r#"{"a": {{ tags|tojson }}, "b": "{{ tags|tojson }}", "c": {{ tags|tojson|upper }}}"#,
            json!({"a": ["prod", "a\"b"], "b": "[\"prod\",\"a\\\"b\"]", "c": "[\"PROD\",\"A\\\"B\"]"}),
        ),
        (
            r#"{"html": "<b>{{ name|e }}</b>"}"#,
            json!({"html": "<b>nightly &quot;report&quot; &lt;&#x2f;b&gt;\\ &amp; 日本\n</b>"}),
        ),
        // A template cannot switch escaping off.
        (
            r#"["{% autoescape false %}{{ name }}{% endautoescape %}", {% autoescape false %}{{ name }}{% endautoescape %}]"#,
            json!([
                "nightly \"report\" </b>\\ & 日本\n",
                "nightly \"report\" </b>\\ & 日本\n"
            ]),
        ),
    ] {
        let text = render(Language::Json, source).unwrap_or_else(|fault| panic!("{source}: {fault:?}"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), made, "{source}");
    }
}

/// Whoever names a monitor chooses these texts. They must not change the fields around them.
#[test]
fn no_value_ends_the_string_that_it_stands_in() {
    let hostile = [
        r#"", "admin": true, "x": ""#,
        r#"\", "admin": true, "x": "\"#,
        "\\",
        "\"",
        "1, \"admin\": true",
        "\u{0}\u{1f}\u{7f}\u{2028}\u{feff}",
        "}]}",
        "{{ name }}",
        "'\n\r\t",
        "\\u0022",
    ];
    for source in [
        r#"{"a": "{{ x }}"}"#,
        r#"{"a": {{ x }}}"#,
        r#"{"a": "- {{ x }} -"}"#,
        r#"{"a": "{{ x|upper|lower }}"}"#,
        r#"{"a": {{ x ~ x }}}"#,
        r#"{% set y %}{{ x }}{% endset %}{"a": {{ y }}}"#,
        r#"{"{% set y %}{{ x }}{% endset %}a": {{ y }}}"#,
        r#"{"a": "{% set y %}{"k": {{ x }}}{% endset %}{{ y }}"}"#,
        r#"{% autoescape true %}{% set y %}{{ x }}{% endset %}{% endautoescape %}{"a": {{ y }}}"#,
        r#"{"a": {{ x|tojson }}}"#,
        r#"{"a": "{{ x|tojson }}"}"#,
        r#"{"a": {{ x|tojson|replace("\"", "") }}}"#,
        r#"{"a": {{ (x|tojson) ~ "" }}}"#,
        r#"{"a": {{ x|e }}}"#,
        r#"{"a": {{ (x|e)|replace("&", "\"") }}}"#,
        r#"{"a": {{ "%s"|format(x|tojson) }}}"#,
        r#"{"a": {{ ("%s"|tojson|replace("\"", ""))|format(x) }}}"#,
        r#"{"a": {{ tags|map("tojson")|join(x) }}}"#,
    ] {
        for text in hostile {
            let variables = json!({"x": text, "tags": ["a", "b"]});
            let made = apart(|| {
                let engine = Engine::new(Language::Json);
                engine.compile(source).unwrap().render(&variables)
            })
            .unwrap()
            .unwrap_or_else(|fault| panic!("{source} {text:?}: {fault:?}"));
            let made: Value = serde_json::from_str(&made).unwrap();
            let fields = made.as_object().unwrap();
            assert_eq!(fields.keys().collect::<Vec<_>>(), ["a"], "{source} {text:?}");
            assert!(fields["a"].is_string(), "{source} {text:?}: {made}");
        }
    }
}

#[test]
fn a_value_after_a_backslash_is_refused() {
    let fault = fault(Language::Json, r#"["\{{ name }}"]"#);

    assert_eq!(fault.message, "a value cannot follow a backslash");
}

#[test]
fn other_languages_have_their_own_escapes() {
    for (language, source, made) in [
        (
            Language::Markup,
            "<p title=\"{{ name }}\">{{ tags }}{{ nothing }}</p>",
            "<p title=\"nightly &quot;report&quot; &lt;/b&gt;\\ &amp; 日本\n\">[&quot;prod&quot;,&quot;a\\&quot;b&quot;]</p>",
        ),
        (
            Language::Form,
            "text={{ name }}&n={{ count }}",
            "text=nightly+%22report%22+%3C%2Fb%3E%5C+%26+%E6%97%A5%E6%9C%AC%0A&n=3",
        ),
        (
            Language::Path,
            "a/{{ name }}?q={{ tags[1] }}",
            "a/nightly%20%22report%22%20%3C%2Fb%3E%5C%20%26%20%E6%97%A5%E6%9C%AC%0A?q=a%22b",
        ),
        (
            Language::Plain,
            "{{ name }}: {{ count }} {{ nothing }}{{ yes }}",
            "nightly \"report\" </b>\\ & 日本\n: 3 true",
        ),
    ] {
        assert_eq!(render(language, source).unwrap(), made);
    }
    for (content_type, language) in [
        ("application/json", Language::Json),
        ("Application/JSON; charset=utf-8", Language::Json),
        ("application/vnd.api+json", Language::Json),
        ("text/html", Language::Markup),
        ("application/atom+xml", Language::Markup),
        ("application/x-www-form-urlencoded", Language::Form),
        ("text/plain", Language::Plain),
        ("application/jsonlines", Language::Plain),
    ] {
        assert_eq!(Language::of(content_type), language, "{content_type}");
    }
}

#[test]
fn a_fault_has_its_line_and_column() {
    for (source, at, message) in [
        ("{{ name }}\n  {{ nmae }}", (2, 6, 17), "`nmae` is undefined"),
        ("日本\n{{ map.x.y }}", (2, 7, 10), "`map.x` is undefined"),
        (
            "{% if nothing.x %}{% endif %}",
            (1, 7, 7),
            "`nothing.x` is undefined",
        ),
        ("a\n\n{{ name|shout }}", (3, 9, 12), "there is no filter shout"),
        (
            "a\n{{ name",
            (2, 4, 6),
            "unexpected end of input, expected end of variable block",
        ),
        ("a\n{% endfor %}", (2, 4, 6), "unknown statement endfor"),
        (
            "{% for x in count %}{% endfor %}",
            (1, 13, 13),
            "number is not iterable",
        ),
        ("{{ name is odder }}", (1, 12, 12), "test odder is unknown"),
        (
            "{{ half + 1 }}",
            (1, 4, 4),
            "`+` is not available; `~` joins texts",
        ),
    ] {
        let fault = fault(Language::Plain, source);
        let found = fault.at.map(|at| (at.line, at.column, at.position));
        assert_eq!((found, fault.message.as_str()), (Some(at), message), "{source}");
    }
}

#[test]
fn text_that_is_no_json_is_a_fault_of_the_part_that_made_it() {
    for (source, at, message) in [
        (
            "{\n  \"a\": 1\n  \"b\": \"{{ name }}\"\n}",
            (3, 3),
            "the text that it makes is not JSON: expected `,` or `}`",
        ),
        (
            "{\"name\": \"{{ name }}\",\n \"x\": x{{ count }}}",
            (2, 7),
            "the text that it makes is not JSON: expected value",
        ),
        (
            "[\n{{ name }} {{ count }}\n]",
            (2, 15),
            "the text that it makes is not JSON: expected `,` or `]`",
        ),
        (
            "{% set t %}{{ name }}{% endset %}[\"{{ t }}\",\n]",
            (2, 1),
            "the text that it makes is not JSON: expected value",
        ),
        (
            "{\"a\": {{ name }}",
            (1, 10),
            "the text that it makes is not JSON: EOF while parsing an object",
        ),
    ] {
        let fault = fault(Language::Json, source);
        let found = fault.at.map(|at| (at.line, at.column));
        assert!(fault.message.starts_with(message), "{source}: {}", fault.message);
        assert_eq!(found, Some(at), "{source}: {}", fault.message);
    }
}

/// Files, other templates, functions, methods and computed lists are out of reach.
#[test]
fn a_template_reaches_nothing_but_the_message() {
    for source in [
        "{% include '/etc/passwd' %}",
        "{% include name %}",
        "{% import '/etc/passwd' as x %}",
        "{% from '/etc/passwd' import x %}",
        "{% extends '/etc/passwd' %}",
        "{% block x %}{% endblock %}",
        "{% macro x() %}{{ x() }}{% endmacro %}{{ x() }}",
        "{% call x() %}{% endcall %}",
        "{{ range(10) }}",
        "{{ namespace(x=1) }}",
        "{{ dict(x=1) }}",
        "{{ debug() }}",
        "{{ open('/etc/passwd') }}",
        "{{ name.upper() }}",
        "{{ self.x() }}",
        "{{ name.__class__.__mro__ }}",
        "{% for x in tags recursive %}{{ loop(tags) }}{% endfor %}",
        "{{ loop.cycle(1) }}",
        "{{ name|safe }}",
        "{{ tags|map('safe')|first }}",
        "{{ tags|map('batch', 1)|first }}",
        "{{ tags|select('filter')|first }}",
        "{{ [name] }}",
        "{{ (name, name) }}",
        "{{ {'a': name} }}",
        "{{ name * 3 }}",
        "{{ 3 ** count }}",
        "{{ '%s'|format(*tags) }}",
    ] {
        fault(Language::Plain, source);
    }
}

/// The parser and the compiler of the engine are recursive. On a stack of the usual size each of these templates ends the process.
#[test]
fn the_deepest_templates_fit_the_stack() {
    let most = limits::TEMPLATE_CHARS;
    let times = |before: &str, part: &str, after: &str| {
        let count = (most - before.len() - after.len()) / part.len();
        format!("{before}{}{after}", part.repeat(count))
    };
    let pairs = |before: &str, open: &str, middle: &str, close: &str, after: &str| {
        let room = most - before.len() - middle.len() - after.len();
        let count = room / (open.len() + close.len());
        format!(
            "{before}{}{middle}{}{after}",
            open.repeat(count),
            close.repeat(count)
        )
    };
    for source in [
        times("{{ ", "-", "x }}"),
        times("{{ ", "-", "1 }}"),
        times("{{ ", "not ", "x }}"),
        times("{{ x", ".a", " }}"),
        times("{{ x", "[0]", " }}"),
        times("{{ x", "()", " }}"),
        times("{{ x", "|d", " }}"),
        times("{{ x", "~x", " }}"),
        times("{{ x", "-x", " }}"),
        times("{{ x", "**x", " }}"),
        times("{{ x", "<x", " }}"),
        times("{{ x", " is d", " }}"),
        times("{{ x", " or x", " }}"),
        times("{{ x", " if x", " }}"),
        times("{{ x", " if x else x", " }}"),
        times("{% if x %}", "{%elif x%}", "{%endif%}"),
        times("{% set x=x %}", "{%set x=[x]%}", ""),
        pairs("{{ ", "(", "x", ")", " }}"),
        pairs("{{ ", "[", "1", "]", " }}"),
        pairs("{{ ", "{1:", "1", "}", " }}"),
        pairs("{{ x", "[x", "", "]", " }}"),
        pairs("", "{%if x%}", "", "{%endif%}", ""),
        pairs("", "{%for x in y%}", "", "{%endfor%}", ""),
        pairs("", "{%set x%}", "", "{%endset%}", ""),
        pairs("", "{%filter d%}", "", "{%endfilter%}", ""),
    ] {
        // The result does not matter: the process must survive.
        let _ = render(Language::Json, &source);
    }
}

/// A template that would take long, or much memory, exhausts its budget, or is refused because the budget cannot limit it.
#[test]
fn a_template_neither_loops_forever_nor_fills_the_memory() {
    let nested = |body: &str| {
        let (open, close) = ("{% for a in many %}".repeat(6), "{% endfor %}".repeat(6));
        format!("{open}{body}{close}")
    };
    let lists = |body: &str| {
        let mut source = "{% set a=[1,1,1,1,1,1,1,1] %}".to_owned();
        for (before, after) in ('a'..'k').zip('b'..) {
            let items = vec![before.to_string(); 8].join(",");
            source.push_str(&format!("{{% set {after}=[{items}] %}}"));
        }
        format!("{source}{body}")
    };
    let doubled = |filter: &str, body: &str| {
        let doubling = format!("{{% set a=a|{filter} %}}").repeat(60);
        format!("{{% set a=many %}}{doubling}{body}")
    };
    let repeated = |step: &str| format!("{{% set a=long %}}{}", step.repeat(60));
    let spent = "it takes too many steps, or makes too much data";
    for source in [
        nested(""),
        nested("{% set x = a.name ~ a.text %}"),
        nested("{% set x = many|tojson %}"),
        nested("{% set x = many|sort(attribute='name') %}"),
        nested("{% set x = long|replace('x', long) %}"),
        nested("{% set x = '%s%s%s'|format(long, long, many) %}"),
        nested("{% set x = many|join(long) %}"),
        nested("{% if many == many %}{% endif %}"),
        nested("{% if a in many %}{% endif %}"),
        nested("{% set x = long|indent(1000) %}"),
        nested("{% set x = many ~ many %}"),
        repeated("{% set a=a~a %}"),
        repeated("{% set a=a|replace('x','xxxx') %}"),
        repeated("{% set a=a|join(a) %}"),
        repeated("{% set a %}{{ a }}{{ a }}{% endset %}"),
        repeated("{% set a='%s%s'|format(a,a) %}"),
        "{{ '%1000000000s'|format('x') }}".to_owned(),
        "{{ '%.1000000000f'|format(1.5) }}".to_owned(),
        "{{ long|indent(1000000000) }}".to_owned(),
    ] {
        assert_eq!(fault(Language::Plain, &source).message, spent, "{source}");
    }
    for source in [
        "{{ long * 100000000 }}".to_owned(),
        "{{ [1] * 100000000 }}".to_owned(),
        "{{ 9 ** 999999999 }}".to_owned(),
        "{{ many|tojson(indent=1000000000) }}".to_owned(),
        lists("{{ k }}"),
        lists("{% set x = k ~ '' %}"),
        lists("{% set x = k|upper %}"),
        lists("{% set x = k|join %}"),
        lists("{% set x = k|urlencode %}"),
        doubled("zip(a)", "{{ a ~ '' }}"),
        doubled("batch(1, a)", "{{ a ~ '' }}"),
        doubled("chain(a)", "{{ a ~ '' }}"),
    ] {
        let fault = fault(Language::Plain, &source);
        assert_ne!(fault.message, spent, "{source}: it is refused");
    }
}

#[test]
fn a_body_may_have_64_000_bytes_and_no_more() {
    let all = (limits::TEMPLATE_OUTPUT_BYTES / 1_000).to_string();
    let source = |more: &str| format!("{}{more}", "{{ long }}".repeat(all.parse().unwrap()));

    assert_eq!(
        render(Language::Plain, &source("")).unwrap().len(),
        limits::TEMPLATE_OUTPUT_BYTES
    );
    let fault = fault(Language::Plain, &source("x"));

    assert_eq!(
        fault.message,
        "it makes more than 64000 bytes, which are the most that are allowed"
    );
}

#[test]
fn each_filter_that_is_named_is_there_and_the_others_are_not() {
    let mut environment = Environment::new();
    bounds::remove_filters(&mut environment);
    environment.add_filter("tojson", escape::tojson);
    for name in FILTERS {
        let is_there = environment.render_str(&format!("{{{{ '{name}' is filter }}}}"), ());
        assert_eq!(is_there.unwrap(), "True", "{name}");
    }
    for name in [
        "safe", "batch", "chain", "zip", "list", "split", "groupby", "slice", "pprint",
    ] {
        let is_there = environment.render_str(&format!("{{{{ '{name}' is filter }}}}"), ());
        assert_eq!(is_there.unwrap(), "False", "{name}");
    }
}
