//! What is made from the definitions: schemas that the documents keep to, completions, the manual page.

use serde_json::Value;
use vpnfix_tests::command::Run;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::Scene;
use vpnfix_tests::traffic;
use vpnfix_tests::watch::Watch;

/// Follows a reference inside a schema.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere")),
        None => schema,
    }
}

/// What of a value does not keep to a schema: required fields that lack, fields that are not known, words of no
/// enumeration. As much of JSON Schema as the documents use.
fn faults(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let schema = resolve(root, schema);
    for list in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[list].as_array() {
            let fits = |choice: &Value| {
                let mut inner = Vec::new();
                faults(root, choice, value, place, &mut inner);
                inner.is_empty()
            };
            if !choices.iter().any(fits) {
                found.push(format!("{place}: fits none of {list}: {value}"));
            }
        }
    }
    if schema["type"] == "null" && !value.is_null() {
        found.push(format!("{place}: not null"));
    }
    if schema["type"] == "string" && !value.is_string() {
        found.push(format!("{place}: no string"));
    }
    if schema.get("const").is_some_and(|constant| constant != value) {
        found.push(format!("{place}: {value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        found.push(format!("{place}: {value} is none of {}", schema["enum"]));
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                found.push(format!("{place}: lacks {name}"));
            }
        }
        for (name, inner) in object {
            if let Some(schema) = properties.get(name) {
                faults(root, schema, inner, &format!("{place}.{name}"), found);
            }
        }
    }
    if let (Some(items), Some(elements)) = (schema.get("items"), value.as_array()) {
        for (index, element) in elements.iter().enumerate() {
            faults(root, items, element, &format!("{place}[{index}]"), found);
        }
    }
}

#[track_caller]
fn keeps_to(schema: &Value, value: &Value) {
    let mut found = Vec::new();
    faults(schema, schema, value, "document", &mut found);
    assert!(found.is_empty(), "{found:#?}\n{value:#}");
}

fn schema(scene: &Scene, name: &str) -> Value {
    Run::new(scene.run_dir(), &["schema", name]).ends(0).json()
}

#[test]
fn every_document_keeps_to_its_published_schema() {
    need_root!();
    let scene = Scene::hijacked();
    let json = |words: &[&str], status| scene.vpnfix(&[words, &["--format", "json"]].concat()).ends(status).json();
    let diagnosis = json(&["diagnose"], 1);
    assert_eq!(diagnosis["schema"], "vpnfix.diagnose/1");
    keeps_to(&schema(&scene, "diagnose"), &diagnosis);

    let of_explain = schema(&scene, "explain");
    // Wrong by a rule, right when bound, refused, of no tunnel: between them every part of the document.
    scene.ip(&["rule add to 10.77.9.0/24 priority 57 prohibit"]);
    for (words, status) in [
        (["explain", "10.77.3.4"].as_slice(), 1),
        (&["explain", "10.77.3.4", "--oif", "Tunnel1"], 0),
        (&["explain", "10.77.9.1"], 1),
        (&["explain", "10.77.3.4", "--proto", "50"], 4),
        (&["explain", "::1"], 0),
    ] {
        let explanation = json(words, status);
        assert_eq!(explanation["schema"], "vpnfix.explain/1");
        keeps_to(&of_explain, &explanation);
    }
    scene.ip(&["rule del to 10.77.9.0/24 priority 57 prohibit"]);

    let trace = scene.start_vpnfix(&["trace", "--limit", "3", "--format", "json"]);
    let traffic = traffic::trickle(&scene.gw(), vpnfix_tests::scene::PEER1);
    let told = Run::finish(trace, &["trace"]);
    drop(traffic);
    let of_a_line = schema(&scene, "trace");
    let lines: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    for line in &lines {
        keeps_to(&of_a_line, line);
    }
    let events = lines.iter().filter(|line| ["lookup", "egress", "tcp"].iter().any(|kind| line["type"] == *kind));
    assert_eq!(events.count(), 3, "{told}");
    assert_eq!(lines.last().map(|line| line["type"].clone()), Some("summary".into()), "{told}");

    let verification = json(&["verify", "--sample", "200ms"], 1);
    assert_eq!(verification["schema"], "vpnfix.verify/1");
    keeps_to(&schema(&scene, "verify"), &verification);

    keeps_to(&schema(&scene, "fix"), &json(&["fix"], 0));
    keeps_to(&schema(&scene, "undo"), &json(&["undo"], 0));
    keeps_to(&schema(&scene, "doctor"), &json(&["doctor"], 0));

    let mut watch = Watch::fixing(&scene, &["--no-probe", "--wait", "1s"]);
    watch.wait_repair("applied");
    let watched = watch.stop();
    let of_a_line = schema(&scene, "watch");
    for line in &watched.lines {
        keeps_to(&of_a_line, line);
    }
    assert_eq!(watched.summary()["repairs"], 1);
}

#[test]
fn a_document_that_breaks_its_schema_is_seen() {
    need_root!();
    let scene = Scene::healthy();
    let schema = schema(&scene, "diagnose");
    let mut document = scene.vpnfix(&["diagnose", "--format", "json"]).ends(0).json();
    document["verdict"] = "splendid".into();
    document.as_object_mut().expect("an object").remove("host");
    let mut found = Vec::new();
    faults(&schema, &schema, &document, "document", &mut found);
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn completions_and_the_manual_name_every_command() {
    need_root!();
    let scene = Scene::healthy();
    for what in [["completions", "bash"].as_slice(), &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let told = Run::new(scene.run_dir(), what).ends(0);
        for command in ["doctor", "diagnose", "explain", "trace", "fix", "undo", "verify", "watch", "lab"] {
            assert!(told.stdout.contains(command), "{what:?} does not name {command}");
        }
        assert!(told.stderr.is_empty(), "{told}");
    }
}
